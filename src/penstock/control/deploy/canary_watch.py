"""What this process hears of gateway workers and of their journals, put together with what others hear."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.reports import Report
from penstock.delivery.watch import Watched
from penstock.store.schema_delivery import watched


class Watch:
    """Kept in memory; `share` writes it down while somebody needs it."""

    def __init__(self, reports: Callable[[], Iterable[Report]] = tuple) -> None:
        """`reports` gives the newest report of each gateway worker that this process has heard of."""
        self._reports = reports
        self._heard: dict[str, float] = {}

    def heard(self, journals: Sequence[str], at: float) -> None:
        """The journals of these names had been read to their ends at `at` (Unix seconds), by whatever host's shipper."""
        for name in journals:
            self._heard[name] = max(at, self._heard.get(name, 0.0))

    def own(self) -> dict[str, Watched]:
        """What this process knows, by journal."""
        found = {name: Watched(journal=name, heard_at=at) for name, at in self._heard.items()}
        for report in self._reports():
            name = report.journal or f"{report.worker} on {report.host}"[:64]
            found[name] = Watched(
                journal=name,
                host=report.host,
                worker=report.worker,
                reported_at=report.at,
                heard_at=self._heard.get(name, 0.0),
            )
        return found

    async def share(self, connection: AsyncConnection) -> list[Watched]:
        """Write down what this process knows, and give what all know."""
        known = {row.journal: _of(row) for row in await connection.execute(select(watched))}
        for name, mine in self.own().items():
            before = known.get(name)
            now = mine if before is None else _together(before, mine)
            if before is None:
                insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
                await connection.execute(
                    insertion(watched).values(**msgspec.structs.asdict(now)).on_conflict_do_nothing()
                )
            elif now != before:
                values = msgspec.structs.asdict(now)
                await connection.execute(update(watched).where(watched.c.journal == name).values(**values))
            known[name] = now
        return list(known.values())


def _of(row: Any) -> Watched:
    return Watched(
        journal=row.journal, host=row.host, worker=row.worker, reported_at=row.reported_at, heard_at=row.heard_at
    )


def _together(before: Watched, mine: Watched) -> Watched:
    """What two processes know of one worker: the later times, and names from whoever heard of them last."""
    later = mine if mine.reported_at >= before.reported_at and mine.worker else before
    return Watched(
        journal=mine.journal,
        host=later.host,
        worker=later.worker,
        reported_at=max(mine.reported_at, before.reported_at),
        heard_at=max(mine.heard_at, before.heard_at),
    )
