"""What this process hears of gateway workers and of their journals, put together with what others hear."""

from collections.abc import Callable, Iterable, Sequence

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
        self._heard: dict[tuple[str, str], float] = {}

    def heard(self, host: str, workers: Sequence[str], at: float) -> None:
        """The journals of `workers` on `host` had been read to their ends at `at` (Unix seconds)."""
        for worker in workers:
            self._heard[host, worker] = max(at, self._heard.get((host, worker), 0.0))

    def own(self) -> dict[tuple[str, str], Watched]:
        """What this process knows."""
        found = {
            (report.host, report.worker): Watched(host=report.host, worker=report.worker, reported_at=report.at)
            for report in self._reports()
        }
        for (host, worker), at in self._heard.items():
            known = found.get((host, worker))
            found[host, worker] = Watched(
                host=host, worker=worker, reported_at=0.0 if known is None else known.reported_at, heard_at=at
            )
        return found

    async def share(self, connection: AsyncConnection) -> list[Watched]:
        """Write down what this process knows, and give what all know."""
        rows = await connection.execute(select(watched))
        known = {
            (r.host, r.worker): Watched(host=r.host, worker=r.worker, reported_at=r.reported_at, heard_at=r.heard_at)
            for r in rows
        }
        for place, mine in self.own().items():
            before = known.get(place)
            reported = max(mine.reported_at, 0.0 if before is None else before.reported_at)
            heard = max(mine.heard_at, 0.0 if before is None else before.heard_at)
            now = Watched(host=mine.host, worker=mine.worker, reported_at=reported, heard_at=heard)
            if before is None:
                insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
                values = {"host": now.host, "worker": now.worker, "reported_at": 0.0, "heard_at": 0.0}
                await connection.execute(insertion(watched).values(**values).on_conflict_do_nothing())
            if now != before:
                await connection.execute(
                    update(watched)
                    .where(watched.c.host == now.host, watched.c.worker == now.worker)
                    .values(reported_at=now.reported_at, heard_at=now.heard_at)
                )
            known[place] = now
        return list(known.values())
