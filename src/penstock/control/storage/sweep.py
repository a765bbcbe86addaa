"""What nothing needs any more is removed: files, blocks, packs. Mark, then sweep, without a lock.

The mark reads what is needed at one moment. The sweep removes rows that were not marked and not touched since the mark began, in a
transaction each; whoever comes to need one meanwhile touches it first, or finds it gone. Objects go after their rows.
"""

import asyncio
import secrets
from collections.abc import Iterable

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Control
from penstock.core.digests import sha256_digest
from penstock.core.errors import Damaged
from penstock.registry.blocks import Block, block_name, unpack_recipe
from penstock.registry.manifest import read_manifest
from penstock.store.block_index import Place, find_places, open_packs, places_in, some
from penstock.store.schema import builds, revisions, uploads, versions
from penstock.store.schema_storage import packs, pins, pulls, stored_blocks, stored_files, upload_files

_WRITING_S = 3600.0  # longer than a pack takes to be written
_HALF = 0.5  # a pack of which less is live is written anew


class Swept(msgspec.Struct, kw_only=True):
    """What a sweep removed, or would."""

    files: int = 0
    blocks: int = 0
    packs: int = 0
    whole_files: int = 0
    rewritten: int = 0  # packs whose live blocks were moved together
    freed: int = 0  # bytes of objects


class _Needed(msgspec.Struct, kw_only=True):
    files: set[str]
    blocks: set[str]


async def sweep(
    control: Control, *, grace_s: float, dry_run: bool = False, only: Iterable[Block] | None = None
) -> Swept:
    """Remove what no version, revision, pin, pull or open upload needs, and what nobody relied on for `grace_s` seconds.

    Args:
        control: the stores.
        grace_s: since the last time somebody relied on it.
        dry_run: tell, and remove nothing.
        only: of blocks, just these; packs are not written anew then.

    Raises:
        Unavailable: if the store or the database fails; what was removed until then is.
    """
    began = control.clock()
    cutoff = began - grace_s
    swept = Swept()
    needed = await _mark(control, began)
    await _sweep_rows(control, needed, cutoff, swept, dry_run, None if only is None else {b.name for b in only})
    if dry_run:
        return swept
    await _sweep_packs(control, cutoff, swept)
    if only is None:
        await _rewrite(control, swept)
        await _sweep_objects(control, swept)
        await _sweep_whole(control, needed, swept)
    return swept


async def read_kept(connection: AsyncConnection) -> dict[str, int]:
    """Bytes of all versions that are not deleted, with the builds that were made of them (`logical`), and of the packs that hold them (`stored`)."""
    logical = select(func.coalesce(func.sum(versions.c.size), 0)).where(versions.c.state != "deleted")
    mine = (builds.c.model == versions.c.model) & (builds.c.label == versions.c.label)
    made = select(func.coalesce(func.sum(builds.c.size), 0)).join(versions, mine)
    made = made.where(versions.c.state != "deleted", builds.c.manifest.is_not(None))
    stored = select(func.coalesce(func.sum(packs.c.size), 0))
    return {
        "logical": int((await connection.execute(logical)).scalar_one())
        + int((await connection.execute(made)).scalar_one()),
        "stored": int((await connection.execute(stored)).scalar_one()),
    }


async def _mark(control: Control, now: float) -> _Needed:
    async with control.database.read() as connection:
        files = await _needed_files(connection, now)
        blocks: set[str] = set()
        for digest_part in some(files):
            statement = select(stored_files.c.blocks).where(stored_files.c.digest.in_(digest_part))
            for raw in (await connection.execute(statement)).scalars():
                blocks.update(block.name for block in unpack_recipe(raw))
        waiting = (
            select(upload_files.c.blocks)
            .join(uploads, uploads.c.id == upload_files.c.upload)
            .where(uploads.c.state == "open", uploads.c.lease_until > now)
        )
        for raw in (await connection.execute(waiting)).scalars():
            blocks.update(block.name for block in unpack_recipe(raw))
        for part in some(sorted(blocks)):
            bases = select(stored_blocks.c.base).where(
                stored_blocks.c.name.in_(part), stored_blocks.c.base.is_not(None)
            )
            blocks.update((await connection.execute(bases)).scalars())
    return _Needed(files=files, blocks=blocks)


async def _needed_files(connection: AsyncConnection, now: float) -> set[str]:
    """The files of versions that are not deleted; of all that an environment ever ran; of what is pinned, pulled or being pushed."""
    kept = (
        (versions.c.state != "deleted")
        | versions.c.digest.in_(select(revisions.c.digest))
        | versions.c.digest.in_(select(pulls.c.digest).where(pulls.c.until > now))
        | (select(pins.c.model).where(pins.c.model == versions.c.model, pins.c.label == versions.c.label).exists())
    )
    found: set[str] = set()
    for row in await connection.execute(select(versions.c.manifest, versions.c.digest).where(kept)):
        found.update(entry.digest for entry in read_manifest(row.manifest, row.digest).files.values())
    mine = (builds.c.model == versions.c.model) & (builds.c.label == versions.c.label)
    made = select(builds.c.manifest).join(versions, mine).where(kept, builds.c.manifest.is_not(None))
    for text in (await connection.execute(made)).scalars():
        found.update(entry.digest for entry in read_manifest(text, sha256_digest(text.encode())).files.values())
    opened = select(uploads.c.manifest, uploads.c.digest).where(uploads.c.state == "open", uploads.c.lease_until > now)
    for row in await connection.execute(opened):
        found.update(entry.digest for entry in read_manifest(row.manifest, row.digest).files.values())
    return found


async def _sweep_rows(
    control: Control, needed: _Needed, cutoff: float, swept: Swept, dry_run: bool, only: set[str] | None
) -> None:
    async with control.database.read() as connection:
        old = select(stored_files.c.digest, stored_files.c.blocks).where(stored_files.c.touched_at < cutoff)
        files = []
        kept: set[str] = set()
        for row in await connection.execute(old):
            names = {block.name for block in unpack_recipe(row.blocks)}
            if row.digest not in needed.files and (only is None or names <= only):
                files.append(row.digest)
            else:
                kept |= names
        young = select(stored_files.c.blocks).where(stored_files.c.touched_at >= cutoff)
        for raw in (await connection.execute(young)).scalars():
            kept.update(block.name for block in unpack_recipe(raw))
        idle = select(stored_blocks.c.name).where(stored_blocks.c.touched_at < cutoff)
        names = {
            name
            for name in (await connection.execute(idle)).scalars()
            if name not in needed.blocks and name not in kept and (only is None or name in only)
        }
        bases = set(
            (await connection.execute(select(stored_blocks.c.base).where(stored_blocks.c.base.is_not(None)))).scalars()
        )
    if dry_run:
        swept.files, swept.blocks = len(files), len(names - bases)
        return
    for part in some(sorted(files)):
        async with control.database.write() as connection:
            gone = delete(stored_files).where(stored_files.c.digest.in_(part), stored_files.c.touched_at < cutoff)
            swept.files += (await connection.execute(gone)).rowcount
    for part in (*some(sorted(names - bases)), *some(sorted(names & bases))):  # bases after what was made of them
        async with control.database.write() as connection:
            other = stored_blocks.alias()
            gone = delete(stored_blocks).where(
                stored_blocks.c.name.in_(part),
                stored_blocks.c.touched_at < cutoff,
                ~select(other.c.name).where(other.c.base == stored_blocks.c.name).exists(),
            )
            swept.blocks += (await connection.execute(gone)).rowcount
    async with control.database.write() as connection:
        ended = select(uploads.c.id).where((uploads.c.state != "open") | (uploads.c.lease_until <= cutoff))
        await connection.execute(delete(upload_files).where(upload_files.c.upload.in_(ended)))
        await connection.execute(delete(uploads).where(uploads.c.state == "open", uploads.c.lease_until <= cutoff))
        await connection.execute(delete(pulls).where(pulls.c.until <= cutoff))


async def _sweep_packs(control: Control, cutoff: float, swept: Swept) -> None:
    """Packs in which nothing lies. No block ever comes to one that is sealed; one that is open is being written, if it is young."""
    held = select(stored_blocks.c.pack).where(stored_blocks.c.pack == packs.c.id).exists()
    over = (packs.c.state == "sealed") | (packs.c.created_at < control.clock() - _WRITING_S)
    empty = select(packs.c.id, packs.c.size).where(~held, over, packs.c.created_at < cutoff)
    async with control.database.read() as connection:
        rows = (await connection.execute(empty)).all()
    for row in rows:
        async with control.database.write() as connection:
            gone = (await connection.execute(delete(packs).where(packs.c.id == row.id, ~held))).rowcount
        if gone:
            await asyncio.to_thread(control.blobs.packs.delete, row.id)
            swept.packs += 1
            swept.freed += row.size


async def _rewrite(control: Control, swept: Swept) -> None:
    """Move the blocks of packs that are mostly dead together into new ones."""
    live = func.coalesce(func.sum(stored_blocks.c.length), 0)
    statement = (
        select(packs.c.id, packs.c.size)
        .join(stored_blocks, stored_blocks.c.pack == packs.c.id)
        .where(packs.c.state == "sealed")
        .group_by(packs.c.id, packs.c.size)
        .having(live < packs.c.size * _HALF)
    )
    async with control.database.read() as connection:
        rows = (await connection.execute(statement)).all()
    for row in rows:
        try:
            await _rewrite_one(control, row.id)
        except (Damaged, FileNotFoundError):
            continue  # it stays as it is, for fsck to tell; or another sweep has moved it
        swept.rewritten += 1
        swept.freed += row.size


async def _rewrite_one(control: Control, pack: str) -> None:
    async with control.database.read() as connection:
        places = await places_in(connection, pack)
    identity = secrets.token_hex(16)
    async with control.database.write() as connection:
        await open_packs(connection, [identity], control.clock())
    moved = await asyncio.to_thread(_copy, control, places, identity)
    async with control.database.write() as connection:
        size = sum(place.length for place in places)
        sealed = update(packs).where(packs.c.id == identity, packs.c.state == "open")
        if (await connection.execute(sealed.values(state="sealed", size=size))).rowcount != 1:
            raise Damaged(f"The pack {identity} was swept while it was written.")
        for name, start in moved:
            mine = update(stored_blocks).where(stored_blocks.c.name == name, stored_blocks.c.pack == pack)
            await connection.execute(mine.values(pack=identity, start=start))
        await connection.execute(delete(packs).where(packs.c.id == pack))
    await asyncio.to_thread(control.blobs.packs.delete, pack)


def _copy(control: Control, places: list[Place], identity: str) -> list[tuple[str, int]]:
    writer = control.blobs.packs.begin(identity)
    moved = []
    at = 0
    try:
        for place in places:
            data = control.blobs.packs.read(place.pack, place.start, place.length)
            _check(place, data)
            writer.write([data])
            moved.append((place.name, at))
            at += place.length
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    return moved


def _check(place: Place, data: bytes) -> None:
    if place.base is None and block_name(data) != place.name:
        raise Damaged(f"The block {place.name[:12]} is damaged.")


async def _sweep_objects(control: Control, swept: Swept) -> None:
    """Objects that no row knows: of a pack whose row was removed, or never sealed, before a process died."""
    found = [entry async for entry in control.blobs.packs.list()]
    async with control.database.read() as connection:
        known = set((await connection.execute(select(packs.c.id))).scalars())
    for identity, size in found:
        if identity not in known:
            await asyncio.to_thread(control.blobs.packs.delete, identity)
            swept.packs += 1
            swept.freed += size


async def _sweep_whole(control: Control, needed: _Needed, swept: Swept) -> None:
    """Files that were kept whole, and that nothing needs or that are in blocks by now."""
    async for whole in control.blobs.whole.list():
        if whole.digest in needed.files:
            async with control.database.read() as connection:
                row = (
                    await connection.execute(select(stored_files.c.blocks).where(stored_files.c.digest == whole.digest))
                ).one_or_none()
                names = {block.name for block in unpack_recipe(row.blocks)} if row is not None else set()
                if row is None or len(await find_places(connection, names)) < len(names):
                    continue
        # A version may have come to need it since the mark, and has no row to touch: it is looked for again where no commit comes between.
        async with control.database.write() as connection:
            if whole.digest not in needed.files and whole.digest in await _needed_files(connection, control.clock()):
                continue
            await control.blobs.whole.delete(whole.digest)
        swept.whole_files += 1
        swept.freed += whole.size
