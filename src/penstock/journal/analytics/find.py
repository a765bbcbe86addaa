"""Exchanges that are looked for, newest first: of the store's files, and of what the journals here hold that is in none of them yet."""

import asyncio
from pathlib import Path

import msgspec

from penstock.core.errors import Damaged, Unavailable
from penstock.core.exchange import Exchange
from penstock.journal.analytics.catalog import Catalog, State
from penstock.journal.analytics.query import Bounds, run_query
from penstock.journal.analytics.seek import Place, Sought, fits, place_of, start_of, statement
from penstock.journal.format import FRAME_HEAD_BYTES, decode_payload
from penstock.journal.inspect import workers
from penstock.journal.reader import JournalReader

TAIL_BYTES = 64 * 1024 * 1024  # of all journals that are in no file: more is a store that is not written


def unwritten(journal: Path, state: State, sought: Sought, below: Place) -> list[Place]:
    """The places of what is looked for in the journals below `journal` from where `state` has read them up to.

    Raises:
        Unavailable: if that is more than `TAIL_BYTES`.
        OSError: if they cannot be read.
    """
    readers = [JournalReader(journal / worker, state.positions.get(worker)) for worker in workers(journal)]
    behind = sum(reader.lag() for reader in readers)
    if behind > TAIL_BYTES:
        raise Unavailable(
            f"{behind >> 20} MiB of the journals in {journal} are not in the analytical store.",
            code="analytics_missing",
        )
    found: list[Place] = []
    for reader in readers:
        try:
            while (batch := reader.read()) is not None:
                for _, frame in batch.frames:
                    place = _place(frame, sought)
                    if place is not None and place < below:
                        found.append(place)
        finally:
            reader.close()
    return found


def _place(frame: bytes, sought: Sought) -> Place | None:
    try:
        record = decode_payload(memoryview(frame)[FRAME_HEAD_BYTES:])
    except Damaged:
        return None
    return place_of(record) if isinstance(record, Exchange) and fits(record, sought) else None


async def find(
    folder: Path, journal: Path, sought: Sought, below: Place, limit: int, *, days: tuple[str, str], bounds: Bounds
) -> tuple[Place, ...]:
    """The newest `limit` of `days` (UTC, first and last) that are `sought` and stand below `below`, newest first.

    They are those of the store in `folder` and of the journals in `journal` together. The journals are read first, from where the store stood then:
    what is written to the store and removed from them meanwhile is in the files that are read after.

    Raises:
        PenstockError: as `run_query`; or if the store is far behind the journals.
        OSError: if the journals cannot be read.
    """
    state = await asyncio.to_thread(Catalog(folder).read)
    newest = await asyncio.to_thread(unwritten, journal, state, sought, below)
    rows = msgspec.structs.replace(bounds, rows=limit)
    sql = statement(sought, below, limit)
    result = await run_query(folder, sql, tenant=sought.tenant or "", bounds=rows, days=days)
    first = start_of(days[0])
    found = {place for place in newest if place.us >= first}
    found.update(Place(int(us), str(name)) for us, name in result.rows)
    return tuple(sorted(found, reverse=True)[:limit])
