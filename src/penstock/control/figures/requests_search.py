"""Looking for requests in the index of exchanges, newest first, page by page.

What the index has columns for is left to the database; the rest is read from the records themselves, at most `SCAN` of them a page: a page that
ends early still says where to go on.
"""

from typing import Annotated

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.exchange import Phases
from penstock.store.schema_experiments import exchanges

SCAN = 20_000  # records that are read for one page
_PIECE = 2_000
_COLUMNS = ("tenant", "route", "experiment", "arm", "version", "outcome", "status")
_Text = Annotated[str, Field(max_length=256, pattern="^[^\\x00]*$")]  # PostgreSQL takes no NUL


class Wanted(BaseModel):
    """What is looked for; what is left out matches all."""

    model_config = ConfigDict(populate_by_name=True)

    start: float | None = Field(default=None, alias="from", ge=0, le=1e11, description="Unix seconds.")
    end: float | None = Field(default=None, alias="to", ge=0, le=1e11, description="Unix seconds; before it.")
    tenant: _Text | None = None
    model: _Text | None = Field(default=None, description="As asked for.")
    route: _Text | None = None
    experiment: _Text | None = None
    arm: _Text | None = None
    version: _Text | None = Field(default=None, description="NAME:LABEL.")
    outcome: _Text | None = None
    status: int | None = Field(default=None, ge=0, le=999)
    error: _Text | None = Field(default=None, description="Error code.")
    min_latency_ms: float | None = Field(default=None, ge=0, le=1e9, description="From first byte to last.")
    id: _Text | None = Field(default=None, description="Any part of the request's id.")
    limit: int = Field(default=50, ge=1, le=500)
    before: int | None = Field(default=None, ge=0, le=2**63 - 1, description="The `next` of the page before.")

    @property
    def reads(self) -> bool:
        """Whether records have to be read for it."""
        return any(value is not None for value in (self.model, self.error, self.min_latency_ms))


class _Read(msgspec.Struct, frozen=True, tag="exchange"):
    """What is read of a record."""

    model: str = ""
    error: str = ""
    phases: Phases = Phases()


_decode = msgspec.msgpack.Decoder(_Read).decode


class Page(msgspec.Struct, frozen=True):
    """Rows of (sequence, record), and where the next page begins: None if this is the last."""

    rows: tuple[tuple[int, bytes], ...]
    next: int | None


async def search(connection: AsyncConnection, wanted: Wanted, tenant: str | None) -> Page:
    """One page, of `tenant` alone if one is given."""
    statement = _statement(wanted, tenant)
    if not wanted.reads:
        rows = (await connection.execute(statement.limit(wanted.limit))).all()
        found = tuple((row.sequence, row.record) for row in rows)
        return Page(found, found[-1][0] if len(found) == wanted.limit else None)
    chosen: list[tuple[int, bytes]] = []
    last: int | None = wanted.before
    for _ in range(SCAN // _PIECE):
        piece = statement if last is None else statement.where(exchanges.c.sequence < last)
        rows = (await connection.execute(piece.limit(_PIECE))).all()
        for row in rows:
            last = row.sequence
            if _fits(row, wanted):
                chosen.append((row.sequence, row.record))
                if len(chosen) == wanted.limit:
                    return Page(tuple(chosen), last)
        if len(rows) < _PIECE:
            return Page(tuple(chosen), None)
    return Page(tuple(chosen), last)


def _statement(wanted: Wanted, tenant: str | None) -> Select[tuple[int, bytes]]:
    statement = select(exchanges.c.sequence, exchanges.c.record).order_by(exchanges.c.sequence.desc())
    for name in _COLUMNS:
        value = getattr(wanted, name)
        if value is not None:
            statement = statement.where(exchanges.c[name] == value)
    if tenant:
        statement = statement.where(exchanges.c.tenant == tenant)
    if wanted.error is not None:
        statement = statement.where(exchanges.c.outcome != "ok")
    if wanted.id is not None:
        statement = statement.where(exchanges.c.id.contains(wanted.id, autoescape=True))
    if wanted.start is not None:
        statement = statement.where(exchanges.c.at >= wanted.start)
    if wanted.end is not None:
        statement = statement.where(exchanges.c.at < wanted.end)
    if wanted.before is not None:
        statement = statement.where(exchanges.c.sequence < wanted.before)
    return statement


def _fits(row: Row[tuple[int, bytes]], wanted: Wanted) -> bool:
    record = _decode(row.record)
    return (
        (wanted.model is None or record.model == wanted.model)
        and (wanted.error is None or record.error == wanted.error)
        and (wanted.min_latency_ms is None or record.phases.done >= wanted.min_latency_ms * 1e6)
    )
