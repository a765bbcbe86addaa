"""Where blocks lie and what files are made of them: the statements over `schema_storage`, each within a transaction of the caller's.

Whoever relies on a block or a file touches its row in the transaction in which that is decided; the sweep removes only rows that were
not touched since it looked. So the two can meet in any order: a touch that comes late finds no row, and the bytes are sent again.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.errors import Damaged, Unavailable
from penstock.registry.blocks import Recipe, seal_of, unpack_recipe
from penstock.store.schema_storage import packs, stored_blocks, stored_files

_SOME = 400  # names of one statement


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a block lies, and how."""

    name: str
    size: int
    pack: str
    start: int
    length: int
    base: str | None = None
    width: int = 0


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose SHA-256 was seen to be that of its blocks."""

    digest: str
    size: int
    recipe: Recipe


def some(names: Iterable[str]) -> Iterator[list[str]]:
    """`names`, each once, as many at a time as one statement takes."""
    every = list(dict.fromkeys(names))
    for start in range(0, len(every), _SOME):
        yield every[start : start + _SOME]


async def touch_blocks(connection: AsyncConnection, names: Iterable[str], now: float) -> set[str]:
    """Those of `names` that are there; the sweep leaves them alone that began before `now`."""
    found: set[str] = set()
    for part in some(sorted(set(names))):  # in one order, so that two of these never wait for each other
        statement = (
            update(stored_blocks)
            .where(stored_blocks.c.name.in_(part))
            .values(touched_at=now)
            .returning(stored_blocks.c.name)
        )
        found.update((await connection.execute(statement)).scalars())
    return found


async def find_places(connection: AsyncConnection, names: Iterable[str]) -> dict[str, Place]:
    """Where those of `names` lie that are there, and the bases of those that are deltas."""
    found = await _places(connection, names)
    bases = {place.base for place in found.values() if place.base is not None} - found.keys()
    if bases:
        found |= await _places(connection, bases)
    return found


async def _places(connection: AsyncConnection, names: Iterable[str]) -> dict[str, Place]:
    found = {}
    for part in some(names):
        rows = await connection.execute(select(stored_blocks).where(stored_blocks.c.name.in_(part)))
        for row in rows:
            found[row.name] = _place(row)
    return found


def _place(row: Any) -> Place:
    return Place(
        name=row.name, size=row.size, pack=row.pack, start=row.start, length=row.length, base=row.base, width=row.width
    )


async def places_in(connection: AsyncConnection, pack: str) -> list[Place]:
    """The blocks that lie in a pack, in their order."""
    statement = select(stored_blocks).where(stored_blocks.c.pack == pack).order_by(stored_blocks.c.start)
    return [_place(row) for row in await connection.execute(statement)]


async def open_packs(connection: AsyncConnection, identities: Iterable[str], now: float) -> None:
    """Packs are about to be written."""
    rows = [{"id": identity, "size": 0, "state": "open", "created_at": now} for identity in identities]
    await connection.execute(insert(packs), rows)


async def seal_pack(connection: AsyncConnection, identity: str, places: Sequence[Place], size: int, now: float) -> None:
    """A pack is on the disk: its blocks count from now on; those that came otherwise meanwhile are left as they are.

    Raises:
        Unavailable: if the pack was swept while it was written.
    """
    statement = update(packs).where(packs.c.id == identity, packs.c.state == "open")
    if (await connection.execute(statement.values(state="sealed", size=size))).rowcount != 1:
        raise Unavailable("What was being stored was swept away meanwhile.", code="blobs_unavailable", retry_after=0.1)
    insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for start in range(0, len(places), _SOME):
        rows = [
            {
                "name": place.name,
                "size": place.size,
                "pack": identity,
                "start": place.start,
                "length": place.length,
                "base": place.base,
                "width": place.width,
                "touched_at": now,
            }
            for place in sorted(places[start : start + _SOME], key=lambda place: place.name)
        ]
        one = insertion(stored_blocks)
        await connection.execute(
            one.on_conflict_do_update(index_elements=["name"], set_={"touched_at": one.excluded.touched_at}), rows
        )


async def drop_pack(connection: AsyncConnection, identity: str) -> None:
    """Forget a pack to which nothing refers."""
    await connection.execute(delete(packs).where(packs.c.id == identity))


async def discard_pack(connection: AsyncConnection, identity: str, sealed_at: float) -> bool:
    """Forget the blocks of a pack that nobody has touched since it was sealed; whether the pack itself is forgotten, too."""
    mine = stored_blocks.c.pack == identity
    await connection.execute(delete(stored_blocks).where(mine, stored_blocks.c.touched_at == sealed_at))
    return await drop_if_empty(connection, identity)


async def drop_if_empty(connection: AsyncConnection, identity: str) -> bool:
    """Forget a pack in which no block lies; whether it was one."""
    mine = stored_blocks.c.pack == identity
    if (await connection.execute(select(stored_blocks.c.name).where(mine).limit(1))).first() is not None:
        return False
    await drop_pack(connection, identity)
    return True


async def find_file(connection: AsyncConnection, digest: str) -> StoredFile | None:
    """The file, if it is there.

    Raises:
        Damaged: if the list of its blocks is not what was written.
    """
    row = (await connection.execute(select(stored_files).where(stored_files.c.digest == digest))).one_or_none()
    return None if row is None else read_file(row)


def read_file(row: Any) -> StoredFile:
    """The file in a row of `stored_files`.

    Raises:
        Damaged: if the list of its blocks is not what was written.
    """
    if seal_of(row.blocks) != row.seal:
        raise Damaged(f"The list of blocks of {row.digest} is not what was written.")
    return StoredFile(digest=row.digest, size=row.size, recipe=unpack_recipe(row.blocks))


async def touch_file(connection: AsyncConnection, digest: str, now: float) -> StoredFile | None:
    """The file, if it is there with all of its blocks; the sweep that began before `now` leaves all of it alone.

    Raises:
        Damaged: if the list of its blocks is not what was written.
    """
    statement = (
        update(stored_files)
        .where(stored_files.c.digest == digest)
        .values(touched_at=now)
        .returning(stored_files.c.digest, stored_files.c.size, stored_files.c.blocks, stored_files.c.seal)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return None
    file = read_file(row)
    names = {block.name for block in file.recipe}
    return file if len(await touch_blocks(connection, names, now)) == len(names) else None


async def bind_file(connection: AsyncConnection, digest: str, size: int, raw: bytes, now: float) -> bool:
    """Note that the file is made of the blocks in the packed recipe `raw`; False if one of them is not there any more."""
    names = {block.name for block in unpack_recipe(raw)}
    if len(await touch_blocks(connection, names, now)) != len(names):
        return False
    insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = {"size": size, "blocks": raw, "seal": seal_of(raw), "touched_at": now}
    one = insertion(stored_files).values(digest=digest, **values)
    await connection.execute(one.on_conflict_do_update(index_elements=["digest"], set_=values))
    return True


async def known_by_seal(connection: AsyncConnection, seals: Iterable[str]) -> dict[str, str]:
    """Seal -> digest, of the files that are there."""
    found: dict[str, str] = {}
    for part in some(seals):
        statement = select(stored_files.c.seal, stored_files.c.digest).where(stored_files.c.seal.in_(part))
        found.update({row.seal: row.digest for row in await connection.execute(statement)})
    return found
