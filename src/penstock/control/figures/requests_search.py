"""Looking for requests in the index of exchanges, newest first, page by page.

What the index has columns for is left to the database; the rest is read from the records themselves, a bounded number of them: a page that
ends early still says where to go on.
"""

import msgspec
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.exchange import Exchange
from penstock.journal.analytics.seek import NEWEST, Place, Sought, fits, micros
from penstock.store.schema_experiments import exchanges

SCAN = 20_000  # records that are read for one page
_PIECE = 2_000
_COLUMNS = ("tenant", "route", "experiment", "arm", "version", "outcome", "status")

_decode = msgspec.msgpack.Decoder(Exchange).decode


class One(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the index: its ingest sequence, its place among all, and its record in msgpack."""

    sequence: int
    place: Place
    record: bytes


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Requests, newest first. All that stands at `edge` or above was looked through; None: all there is."""

    found: tuple[One, ...]
    edge: Place | None


async def look_through(
    connection: AsyncConnection, sought: Sought, below: Place, limit: int, *, most: int, narrow: bool
) -> Page:
    """The newest `limit` requests below `below` that are `sought`, of at most about `most` that are read.

    Args:
        connection: to control's database.
        sought: what is looked for.
        below: where the page begins.
        limit: most requests of the page.
        most: so many are read.
        narrow: the database leaves out what its columns rule out, however much that makes it read; else all is read, newest first.
    """
    found: list[One] = []
    edge = below
    statement = _statement(sought, narrow=narrow)
    piece = _PIECE if narrow and _reads(sought) else min(most, _PIECE)
    if sought.everything or (narrow and not _reads(sought)):
        piece = limit + 1
    looked = 0
    while looked < most:
        rows = (await connection.execute(statement.where(exchanges.c.at < (edge.us + 2) / 1e6).limit(piece))).all()
        places = sorted(((Place(micros(row.at), row.id), row) for row in rows), key=_place, reverse=True)
        full = len(rows) == piece
        last = places[-1][0].us if full else -1
        if full and last in {places[0][0].us, edge.us}:  # more of one microsecond than were read
            piece *= 2
            continue
        for place, row in places:
            if place < edge and place.us > last and fits(_decode(row.record), sought):
                found.append(One(sequence=row.sequence, place=place, record=row.record))
                if len(found) == limit:
                    return Page(found=tuple(found), edge=place)
        if not full:
            return Page(found=tuple(found), edge=None)
        looked += len(rows)
        edge = Place(last + 1)
    return Page(found=tuple(found), edge=edge)


async def the_one(connection: AsyncConnection, sought: Sought) -> One | None:
    """The request whose whole id is `sought.id`, if there is one and it is sought."""
    return next(iter(await those(connection, [sought.id or ""], sought)), None)


async def those(connection: AsyncConnection, ids: list[str], sought: Sought) -> list[One]:
    """Those of at most some hundred `ids` that are in the index and `sought`, newest first."""
    rows = (await connection.execute(_selected().where(exchanges.c.id.in_(ids)))).all()
    ones = [
        One(sequence=row.sequence, place=Place(micros(row.at), row.id), record=row.record)
        for row in rows
        if fits(_decode(row.record), sought)
    ]
    return sorted(ones, key=lambda one: one.place, reverse=True)


async def latest(connection: AsyncConnection, since: float, limit: int) -> list[Exchange]:
    """The newest `limit` requests from `since` (Unix seconds) on, newest first."""
    sought = Sought(start_us=micros(since))
    page = await look_through(connection, sought, Place(NEWEST), limit, most=SCAN, narrow=True)
    return [_decode(one.record) for one in page.found]


def _reads(sought: Sought) -> bool:
    """Whether records have to be read for it: nothing in the index's columns says so."""
    values = (sought.model, sought.error, sought.min_latency_ms, sought.min_cost_usd, sought.finding)
    return any(value is not None for value in values)


def _place(pair: "tuple[Place, Row[tuple[int, str, float, bytes]]]") -> Place:
    return pair[0]


def _selected() -> Select[tuple[int, str, float, bytes]]:
    return select(exchanges.c.sequence, exchanges.c.id, exchanges.c.at, exchanges.c.record)


def _statement(sought: Sought, *, narrow: bool) -> Select[tuple[int, str, float, bytes]]:
    statement = _selected().order_by(exchanges.c.at.desc())
    if sought.start_us is not None:
        statement = statement.where(exchanges.c.at > (sought.start_us - 2) / 1e6)
    if not narrow:
        return statement
    for name in _COLUMNS:
        value = getattr(sought, name)
        if value is not None:
            statement = statement.where(exchanges.c[name] == value)
    if sought.error is not None:
        statement = statement.where(exchanges.c.outcome != "ok")
    if sought.id is not None:
        statement = statement.where(exchanges.c.id.contains(sought.id, autoescape=True))
    return statement
