"""Which days the analytical store can be asked for instead of the index: those of which it holds, with the journals here, all that the index does.

It may not: gateways of other hosts have stores of their own; it began later than the index, has grown to its bound, or was switched off for a while.
So each day's requests are counted in both, once it is over, and every `AGAIN_S` seconds before.
"""

import asyncio
import logging
from collections import Counter

import msgspec
from sqlalchemy import func, select

from penstock.control.context import Control
from penstock.control.figures.statements import Statements
from penstock.journal.analytics.catalog import Catalog
from penstock.journal.analytics.find import unwritten
from penstock.journal.analytics.seek import DAY_US, NEWEST, Place, Sought, day_of, micros, start_of
from penstock.journal.inspect import workers
from penstock.journal.names import journal_name
from penstock.store.schema_experiments import exchanges, ingest_offsets

WINDOW_ROWS = 20_000_000  # that one page looks through, a day at least
AGAIN_S = 600.0
_DAYS = 400  # at most, of one page
_log = logging.getLogger("penstock.control")


class Days(msgspec.Struct, frozen=True, kw_only=True):
    """UTC days from `first` to `last`, YYYY-MM-DD, and whether the index holds anything older."""

    first: str
    last: str
    older: bool


class Coverage:
    """Knows it of the store that `statements` run over."""

    def __init__(self, control: Control, statements: Statements) -> None:
        self._control = control
        self._folder = statements.folder
        self._journal = control.data / "journal"
        self._whole: dict[str, float] = {}  # by day: when it was found to be, Unix seconds

    async def below(self, place: Place, since_us: int) -> Days | None:
        """The newest days, before `place` and not before `since_us`, that one page can be found in; None if the newest of them is none.

        Raises:
            PenstockError: if the store's log or the database cannot be read.
            OSError: if the journals cannot be.
        """
        elsewhere = await self._heard_elsewhere()
        days: list[str] = []
        rows = 0
        newest = await self._newest((place.us + 1) / 1e6)
        while newest is not None and rows < WINDOW_ROWS and len(days) < _DAYS:
            day = day_of(micros(newest))
            if start_of(day) + DAY_US <= since_us:
                break
            held = await self._held(day, elsewhere)
            if held is None:
                break
            days.append(day)
            rows += held
            newest = await self._newest(start_of(day) / 1e6)
        if not days:
            return None
        return Days(first=days[-1], last=days[0], older=newest is not None)

    async def _newest(self, before: float) -> float | None:
        async with self._control.database.read() as connection:
            found: float | None = (
                await connection.execute(select(func.max(exchanges.c.at)).where(exchanges.c.at < before))
            ).scalar_one()
        return found

    async def _heard_elsewhere(self) -> float:
        """When control last took in something of a journal that is not on this machine, Unix seconds; 0: never."""
        here = await asyncio.to_thread(self._sources)
        async with self._control.database.read() as connection:
            rows = (await connection.execute(select(ingest_offsets.c.source, ingest_offsets.c.at))).all()
        return max((float(row.at) for row in rows if row.source not in here), default=0.0)

    def _sources(self) -> set[str]:
        return {journal_name(self._journal / worker) for worker in workers(self._journal)}

    async def _held(self, day: str, elsewhere: float) -> int | None:
        """How many rows the store has of `day`; None if it does not hold all of it."""
        begins = start_of(day) / 1e6
        if elsewhere >= begins:
            return None
        now = self._control.clock()
        found = self._whole.get(day)
        over = begins + DAY_US / 1e6 <= now
        if found is not None and (over or now - found < AGAIN_S):
            return (await asyncio.to_thread(self._counted, day, tail=False))[0]
        async with self._control.database.read() as connection:
            count = select(func.count()).where(exchanges.c.at >= begins, exchanges.c.at < begins + DAY_US / 1e6)
            known: int = (await connection.execute(count)).scalar_one()
        held, tail = await asyncio.to_thread(self._counted, day, tail=True)
        if known > held + tail:
            _log.info("The store has %d of the %d requests of %s: these are read from the index", held, known, day)
            self._whole.pop(day, None)
            return None
        self._whole[day] = now
        return held

    def _counted(self, day: str, *, tail: bool) -> tuple[int, int]:
        """Of `day`: rows of the store; and what the journals hold beyond it, if `tail` is asked for."""
        state = Catalog(self._folder).read()
        held = sum(file.rows for file in state.files.values() if file.table == "exchanges" and file.day == day)
        if not tail:
            return held, 0
        days = Counter(day_of(one.us) for one in unwritten(self._journal, state, Sought(), Place(NEWEST)))
        return held, days[day]
