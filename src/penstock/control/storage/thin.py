"""Full fine-tunes made small, off the hot path: blocks become deltas of the blocks at the same places of the version's base.

A delta's base is never a delta itself, and a base never becomes one. Each delta is put together again and compared before the block's row
points to it; the original's bytes go with the sweep.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Control
from penstock.control.storage.fsck import tensors_of
from penstock.core.errors import Damaged
from penstock.registry.blocks import block_name
from penstock.registry.delta import WORTH, decode_delta, encode_delta
from penstock.registry.layout import Tensor
from penstock.registry.manifest import Manifest, read_manifest
from penstock.store.block_index import Place, StoredFile, open_packs
from penstock.store.schema import versions
from penstock.store.schema_storage import packs, stored_blocks, stored_files
from penstock.store.sql import next_value

_LEAST = 16 << 10  # bytes of a block that is worth the while
_BATCH = 64  # blocks of one pack of deltas
_NICE = 19
_BACK = 3  # versions before one that names no base


class _Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A block and the one at its place in the base."""

    name: str
    base: str
    width: int


async def thin_next(control: Control) -> bool:
    """Look at one file that nobody has looked at yet, the oldest version's first; whether there was one.

    Raises:
        Unavailable: if the store or the database fails; the file is looked at again then.
    """
    found = await _next_file(control)
    if found is None:
        return False
    with suppress(Damaged):  # fsck tells
        await _thin(control, found)
    async with control.database.write() as connection:
        done = update(stored_files).where(stored_files.c.digest == found.digest)
        await connection.execute(done.values(thinned_at=control.clock()))
    return True


class _Todo(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be looked at, its version's manifest, and those of versions that it may have come from."""

    digest: str
    path: str
    manifest: Manifest
    bases: tuple[Manifest, ...]


async def _next_file(control: Control) -> _Todo | None:
    async with control.database.read() as connection:
        unseen = select(stored_files.c.digest).where(stored_files.c.thinned_at.is_(None))
        new = set((await connection.execute(unseen)).scalars())
        if not new:
            return None
        rows = await connection.execute(
            select(versions).where(versions.c.state != "deleted").order_by(versions.c.created_at, versions.c.number)
        )
        for row in rows:
            manifest = read_manifest(row.manifest, row.digest)
            path = next((path for path, entry in manifest.files.items() if entry.digest in new), None)
            if path is not None:
                bases = await _bases_of(connection, row)
                return _Todo(digest=manifest.files[path].digest, path=path, manifest=manifest, bases=bases)
    return None


async def waiting_to_thin(control: Control) -> int:
    """Files of versions that have not been looked at."""
    async with control.database.read() as connection:
        statement = select(stored_files.c.digest).where(stored_files.c.thinned_at.is_(None))
        new = set((await connection.execute(statement)).scalars())
        if not new:
            return 0
        rows = await connection.execute(
            select(versions.c.manifest, versions.c.digest).where(versions.c.state != "deleted")
        )
        used = {e.digest for row in rows for e in read_manifest(row.manifest, row.digest).files.values()}
    return len(new & used)


async def _bases_of(connection: AsyncConnection, version: Any) -> tuple[Manifest, ...]:
    """The version that is named as its base; if none is, those of its model that came just before it."""
    told = version.metadata.get("base")
    if isinstance(told, dict) and isinstance(told.get("digest"), str):
        named = select(versions).where(versions.c.digest == told["digest"]).order_by(versions.c.created_at).limit(1)
        row = (await connection.execute(named)).first()
        if row is not None:
            return (read_manifest(row.manifest, row.digest),)
    before = (
        select(versions)
        .where(versions.c.model == version.model, versions.c.number < version.number, versions.c.state != "deleted")
        .order_by(versions.c.number.desc())
        .limit(_BACK)
    )
    return tuple(read_manifest(row.manifest, row.digest) for row in await connection.execute(before))


async def _thin(control: Control, todo: _Todo) -> None:
    pairs = await _pairs(control, todo)
    for start in range(0, len(pairs), _BATCH):
        await _store(control, pairs[start : start + _BATCH])


async def _pairs(control: Control, todo: _Todo) -> list[_Pair]:
    """Blocks of the file that are in no base, each with the block at the same place of the tensor of its name there."""
    file = await control.blobs.file(todo.digest)
    if file is None or not todo.path.endswith(".safetensors"):
        return []
    tensors = await tensors_of(control, todo.manifest, todo.path)
    theirs: dict[tuple[str, str, int, int], str] = {}
    known: set[str] = set()
    for base in todo.bases:
        for path, entry in base.files.items():
            held = await control.blobs.file(entry.digest) if path.endswith(".safetensors") else None
            if held is not None:
                known.update(block.name for block in held.recipe)
                theirs = dict(_places_in(held, await tensors_of(control, base, path))) | theirs
    pairs: dict[str, _Pair] = {}
    for key, name in _places_in(file, tensors):
        found = theirs.get(key)
        if found is not None and name not in known and key[3] >= _LEAST:
            pairs[name] = _Pair(name=name, base=found, width=_width(key[1]))
    return list(pairs.values())


def _places_in(file: StoredFile, tensors: tuple[Tensor, ...]) -> Iterator[tuple[tuple[str, str, int, int], str]]:
    """(tensor, type, offset in it, size) -> block, of blocks that lie within one tensor."""
    at = number = 0
    for block in file.recipe:
        while number < len(tensors) and tensors[number].end <= at:
            number += 1
        if number < len(tensors) and tensors[number].start <= at and at + block.size <= tensors[number].end:
            tensor = tensors[number]
            yield (tensor.name, tensor.dtype, at - tensor.start, block.size), block.name
        at += block.size


def _width(dtype: str) -> int:
    return Tensor(name="", dtype=dtype, shape=(), start=0, end=0).width


async def _store(control: Control, pairs: list[_Pair]) -> None:
    places = await control.blobs.places([*(pair.name for pair in pairs), *(pair.base for pair in pairs)])
    made = await asyncio.to_thread(_at_leisure, control, pairs, places)
    if not made:
        return
    identity = secrets.token_hex(16)
    async with control.database.write() as connection:
        await open_packs(connection, [identity], control.clock())
    writer = await asyncio.to_thread(control.blobs.packs.begin, identity)
    try:
        await asyncio.to_thread(writer.write, [data for _, data in made])
        await asyncio.to_thread(writer.finish)
    except BaseException:
        await asyncio.to_thread(writer.abort)
        raise
    async with control.database.write() as connection:
        await next_value(connection, "storage")  # one after the other: who becomes a delta is nobody's base
        size = sum(len(data) for _, data in made)
        sealed = update(packs).where(packs.c.id == identity, packs.c.state == "open")
        if (await connection.execute(sealed.values(state="sealed", size=size))).rowcount != 1:
            return
        at = 0
        for pair, data in made:
            place = {"pack": identity, "start": at, "length": len(data), "base": pair.base, "width": pair.width}
            at += len(data)
            if not await _may(connection, pair, control.clock()):
                continue
            mine = update(stored_blocks).where(stored_blocks.c.name == pair.name, stored_blocks.c.base.is_(None))
            await connection.execute(mine.values(**place))


async def _may(connection: AsyncConnection, pair: _Pair, now: float) -> bool:
    """Whether the base is there and no delta, and nothing is a delta of the block; the base is kept from the sweep."""
    uses = select(stored_blocks.c.name).where(stored_blocks.c.base == pair.name).limit(1)
    if (await connection.execute(uses)).first() is not None:
        return False
    base = update(stored_blocks).where(stored_blocks.c.name == pair.base, stored_blocks.c.base.is_(None))
    return (await connection.execute(base.values(touched_at=now))).rowcount == 1


def _at_leisure(control: Control, pairs: list[_Pair], places: dict[str, Place]) -> list[tuple[_Pair, bytes]]:
    """The deltas that are worth their while, made in a thread that yields to everything else."""
    made: list[tuple[_Pair, bytes]] = []

    def work() -> None:
        with suppress(OSError, AttributeError):  # elsewhere threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        for pair in pairs:
            with suppress(Damaged, FileNotFoundError):
                found = _delta(control, pair, places)
                if found is not None:
                    made.append(found)

    thread = threading.Thread(target=work, name="deltas", daemon=True)
    thread.start()
    thread.join()
    return made


def _delta(control: Control, pair: _Pair, places: dict[str, Place]) -> tuple[_Pair, bytes] | None:
    place, under = places.get(pair.name), places.get(pair.base)
    if place is None or under is None or place.base is not None:
        return None
    if under.base is not None:  # a delta itself: what it is made of serves as well
        pair = msgspec.structs.replace(pair, base=under.base)
    data = control.blobs.read_block(pair.name, places)
    base = control.blobs.read_block(pair.base, places)
    if len(data) != len(base) or block_name(data) != pair.name or block_name(base) != pair.base:
        return None
    delta = encode_delta(data, base, pair.width)
    if len(delta) > WORTH * len(data) or decode_delta(delta, base, pair.width) != data:
        return None
    return pair, delta
