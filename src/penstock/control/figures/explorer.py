"""The explorer of requests: pages of what is looked for, newest first, however rare it is and however far back.

The newest records are read from control's index, which has all of them whole. What is rarer is found by DuckDB in the analytical store and in the
tail of the journals that is not in it yet, and then read from the index by its id. Days of which the store does not hold all that the index does
(`figures.coverage`) are looked through in the index, a bounded number of records a page, and so is everything where there is no DuckDB.
"""

import asyncio
import logging
from importlib.util import find_spec
from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from penstock.control.context import Control
from penstock.control.figures.coverage import Coverage
from penstock.control.figures.requests_search import SCAN, One, Page, look_through, the_one, those
from penstock.control.figures.statements import Statements
from penstock.core.errors import PenstockError
from penstock.journal.analytics.seek import NEWEST, Place, Sought, micros, place_from, start_of

QUICK = 2_000  # records of the index that are read before the store is asked
_log = logging.getLogger("penstock.control")
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
    min_latency_ms: float | None = Field(default=None, ge=0, le=1e9, description="From first byte to last, at least.")
    min_cost_usd: float | None = Field(default=None, ge=0, le=1e9, description="At least.")
    finding: _Text | None = Field(default=None, description="A content rule that found something; *: any.")
    id: _Text | None = Field(default=None, description="Any part of the request's id.")
    limit: int = Field(default=50, ge=1, le=500)
    before: _Text | None = Field(default=None, description="The `next` of the page before.")

    def sought(self, tenant: str | None) -> Sought:
        """What is looked for, of `tenant` alone if one is given."""
        names = set(Sought.__struct_fields__) - {"start_us", "tenant"}
        start = None if self.start is None else micros(self.start)
        return Sought(start_us=start, tenant=tenant, **{name: getattr(self, name) for name in names})

    def below(self) -> Place:
        """Where the page begins.

        Raises:
            BadRequest: if `before` is no page's `next`.
        """
        end = NEWEST if self.end is None else min(NEWEST, micros(self.end))
        return min(Place(end), Place(NEWEST) if self.before is None else place_from(self.before))


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A page: requests, where the next begins (None: this is the last), and what was asked for it."""

    found: tuple[One, ...]
    next: Place | None
    through: Literal["index", "store"]


class Explorer:
    """Looks for requests of `control`; `statements` run over its store."""

    def __init__(self, control: Control, statements: Statements) -> None:
        self._control = control
        self._statements = statements
        self._journal = control.data / "journal"
        self._coverage = Coverage(control, statements)

    async def page(self, wanted: Wanted, tenant: str | None) -> Seen:
        """A page of what is `wanted`, of `tenant` alone if one is given.

        Raises:
            BadRequest: if `wanted.before` is no page's `next`.
            Unavailable: if the database cannot be read.
        """
        sought, below = wanted.sought(tenant), wanted.below()
        async with self._control.database.read() as connection:
            one = await the_one(connection, sought) if sought.id and wanted.before is None else None
            if one is not None and one.place < below:
                return Seen(found=(one,), next=None, through="index")
            quick = await look_through(connection, sought, below, wanted.limit, most=QUICK, narrow=False)
        if len(quick.found) == wanted.limit or quick.edge is None:
            return Seen(found=quick.found, next=_next(quick.edge, sought), through="index")
        rest, through = await self._further(sought, quick.edge, wanted.limit - len(quick.found))
        return Seen(found=quick.found + rest.found, next=_next(rest.edge, sought), through=through)

    async def _further(self, sought: Sought, below: Place, limit: int) -> tuple[Page, Literal["index", "store"]]:
        try:
            page = await self._in_store(sought, below, limit)
        except (PenstockError, OSError) as error:
            _log.warning("The explorer reads the index, because the analytical store does not answer: %s", error)
            page = None
        if page is not None:
            return page, "store"
        async with self._control.database.read() as connection:
            return await look_through(connection, sought, below, limit, most=SCAN, narrow=True), "index"

    async def _in_store(self, sought: Sought, below: Place, limit: int) -> Page | None:
        """What the store has of the page; None if it cannot be asked for what comes next."""
        if find_spec("duckdb") is None or not await asyncio.to_thread(self._statements.folder.is_dir):
            return None
        days = await self._coverage.below(below, sought.start_us or 0)
        if days is None:
            return None
        places = await self._statements.find(self._journal, sought, below, limit, (days.first, days.last))
        async with self._control.database.read() as connection:
            found = await those(connection, [place.id for place in places], sought) if places else []
        if len(places) == limit:
            edge: Place | None = places[-1]
        else:
            edge = Place(start_of(days.first)) if days.older else None
        return Page(found=tuple(one for one in found if one.place < below), edge=edge)


def _next(edge: Place | None, sought: Sought) -> Place | None:
    """Where the next page begins; None if nothing that is looked for can be below."""
    return None if edge is None or (edge.us <= (sought.start_us or 0) and not edge.id) else edge
