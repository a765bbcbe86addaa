"""Statements over the analytical store, a few at a time, within the installation's bounds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from penstock.core.errors import Unavailable
from penstock.core.settings import Settings
from penstock.journal.analytics.find import find
from penstock.journal.analytics.named import sql_of
from penstock.journal.analytics.query import Bounds, run_query, told
from penstock.journal.analytics.seek import Place, Sought

AT_ONCE = 2  # statements that run at the same time; a few more wait
WAITING = 8


class Statements:
    """Runs them over the store in `folder`, each in a process of its own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder = folder
        self._settings = settings.analytics
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asked = 0

    async def query(self, sql: str, limit: int, tenant: str) -> dict[str, Any]:
        """What `sql`, or the query @NAME, gives; of `tenant` alone, if one is given.

        Raises:
            BadRequest: as `run_query`.
            NotFound: if there is no query of that name.
            Unavailable: as `run_query`; or if too many are being run.
        """
        async with self._turn():
            result = await run_query(self.folder, sql_of(sql), tenant=tenant, bounds=self._bounds(limit))
        return told(result)

    async def find(
        self, journal: Path, sought: Sought, below: Place, limit: int, days: tuple[str, str]
    ) -> tuple[Place, ...]:
        """As `journal.analytics.find.find`.

        Raises:
            PenstockError: as that; or if too many are being run.
            OSError: as that.
        """
        async with self._turn():
            return await find(self.folder, journal, sought, below, limit, days=days, bounds=self._bounds(limit))

    def _bounds(self, rows: int) -> Bounds:
        settings = self._settings
        return Bounds(rows=min(rows, settings.query_rows), seconds=settings.query_s, memory_mb=settings.query_memory_mb)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._asked >= AT_ONCE + WAITING:
            raise Unavailable("Too many queries are being run; try again in a moment.", retry_after=5.0)
        self._asked += 1
        try:
            async with self._turns:
                yield
        finally:
            self._asked -= 1
