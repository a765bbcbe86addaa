"""`/api/v1/query`: SQL over the analytical store; and for how long the store's owner keeps what, at /internal/v1/retention."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_service, needs_in_tenant
from penstock.control.content.forget import read_retention
from penstock.control.figures.statements import Statements
from penstock.journal.analytics.named import NAMED


class QueryBody(BaseModel):
    """What POST /query takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sql: str = Field(
        min_length=1, max_length=100_000, description="One SELECT over `exchanges` and `observations`, or @NAME."
    )
    limit: int = Field(default=1000, ge=1, le=1_000_000, description="Most rows; `analytics.query_rows` at most.")


def analytics_router(statements: Statements) -> APIRouter:
    """The routes, to stand below /api/v1."""
    router = APIRouter(tags=["analytics"])
    viewer = Annotated[Principal, Depends(needs_in_tenant("usage:read"))]

    @router.post("/query")
    async def query(who: viewer, body: QueryBody) -> dict[str, Any]:
        """One SELECT over the tables `exchanges` and `observations`; bounded in time, memory and size of the result."""
        return await statements.query(body.sql, body.limit, who.held_to() or "")

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
