"""`/api/v1/query`: SQL over the analytical store; and for how long the store's owner keeps what, at /internal/v1/retention."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_service, needs_in_tenant
from penstock.control.content.forget import read_retention
from penstock.core.errors import Unavailable
from penstock.core.settings import Settings
from penstock.journal.analytics.named import NAMED, sql_of
from penstock.journal.analytics.query import Bounds, run_query, told

AT_ONCE = 2  # statements that run at the same time; a few more wait
WAITING = 8


class QueryBody(BaseModel):
    """What POST /query takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sql: str = Field(
        min_length=1, max_length=100_000, description="One SELECT over `exchanges` and `observations`, or @NAME."
    )
    limit: int = Field(default=1000, ge=1, le=1_000_000, description="Most rows; `analytics.query_rows` at most.")


class Analytics:
    """Runs statements, a few at a time."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings.analytics
        self._folder = folder
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asked = 0

    async def query(self, who: Principal, body: QueryBody) -> dict[str, Any]:
        """What `body` asks for, of `who`'s tenant alone if it has one.

        Raises:
            BadRequest: as `run_query`.
            Unavailable: if too many are being run.
        """
        bounds = Bounds(
            rows=min(body.limit, self._settings.query_rows),
            seconds=self._settings.query_s,
            memory_mb=self._settings.query_memory_mb,
        )
        if self._asked >= AT_ONCE + WAITING:
            raise Unavailable("Too many queries are being run; try again in a moment.", retry_after=5.0)
        self._asked += 1
        try:
            async with self._turns:
                result = await run_query(self._folder, sql_of(body.sql), tenant=who.held_to() or "", bounds=bounds)
        finally:
            self._asked -= 1
        return told(result)


def analytics_router(analytics: Analytics) -> APIRouter:
    """The routes, to stand below /api/v1."""
    router = APIRouter(tags=["analytics"])
    viewer = Annotated[Principal, Depends(needs_in_tenant("usage:read"))]

    @router.post("/query")
    async def query(who: viewer, body: QueryBody) -> dict[str, Any]:
        """One SELECT over the tables `exchanges` and `observations`; bounded in time, memory and size of the result."""
        return await analytics.query(who, body)

    @router.get("/query/named")
    async def named(_who: viewer) -> list[dict[str, str]]:
        """Queries that have names: ask for them as @NAME."""
        return [{"name": name, "help": one.help, "sql": one.sql} for name, one in NAMED.items()]

    return router


def retention_router() -> APIRouter:
    """What the store's owner asks."""
    router = APIRouter(prefix="/internal/v1", dependencies=[Depends(check_service)], include_in_schema=False)

    @router.get("/retention")
    async def retention(control: ControlPart) -> dict[str, Any]:
        """Days by tenant."""
        async with control.database.read() as connection:
            found: dict[str, Any] = msgspec.to_builtins(await read_retention(connection))
        return found

    return router
