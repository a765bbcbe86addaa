"""Every byte that is stored is read and compared with what names it; what is wrong is told by version, file and tensor."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import msgspec
from sqlalchemy import delete, select

from penstock.control.context import Control
from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, Damaged, NotFound, Unavailable
from penstock.registry.blocks import block_name
from penstock.registry.layout import MAX_HEADER, Tensor, header_length, read_constants, read_header, tensors_between
from penstock.registry.manifest import Manifest, read_manifest
from penstock.store.block_index import StoredFile, read_file, some
from penstock.store.schema import builds, versions
from penstock.store.schema_storage import packs, stored_blocks, stored_files

_TELL = 64 << 20  # bytes between two words of how far it is
_MAX_XML = 64 << 20


class Damage(msgspec.Struct, frozen=True, kw_only=True, tag="damage"):
    """One thing that is wrong."""

    version: str  # NAME:LABEL; of several that share the bytes, the first
    file: str
    tensors: tuple[str, ...]
    start: int  # bytes of the file
    end: int
    reason: str


class Far(msgspec.Struct, frozen=True, kw_only=True, tag="far"):
    """How far it is."""

    checked: int  # bytes
    total: int


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The end."""

    checked: int
    blocks: int
    files: int
    versions: int
    damaged: int


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    reference: str
    manifest: Manifest


async def fsck(control: Control, *, forget: bool = False) -> AsyncIterator[Damage | Far | Done]:
    """Check everything, and tell what is wrong as it is found; the last is `Done`.

    Every block is read once and compared with its name, deltas put together first; every list of blocks with its seal; every manifest with
    its version's digest; files that are kept whole with theirs.

    Args:
        control: the stores.
        forget: damaged blocks, so that a push of the same files brings them again.

    Raises:
        Unavailable: if the store or the database cannot be read.
    """
    known, files, rows, broken = await _read(control)
    damaged = 0
    for damage in broken:
        damaged += 1
        yield damage
    total = sum(block.size for block in _blocks(files.values()))
    checked = told = count = 0
    bad: dict[str, str] = {}
    async for name, size, reason in _check_blocks(control, files, rows):
        checked += size
        count += 1
        if reason is not None:
            bad[name] = reason
        if checked - told >= _TELL:
            told = checked
            yield Far(checked=checked, total=total)
    for version in known:
        for path, entry in version.manifest.files.items():
            async for damage in _damage_of(control, version, path, entry.digest, files, bad):
                damaged += 1
                yield damage
    async for damage in _unused(control, files, known, bad):
        damaged += 1
        yield damage
    if forget:
        await _forget(control, bad)
    yield Done(checked=checked, blocks=count, files=len(files), versions=len(known), damaged=damaged)


async def _forget(control: Control, bad: dict[str, str]) -> None:
    for part in some(sorted(bad)):
        async with control.database.write() as connection:
            await connection.execute(delete(stored_blocks).where(stored_blocks.c.name.in_(part)))


async def _read(control: Control) -> "tuple[list[_Version], dict[str, StoredFile], list[_Named], list[Damage]]":
    """What there is, at one moment: versions, files, blocks; and what of that is damaged itself."""
    known, files, broken = [], {}, []
    async with control.database.read() as connection:
        rows = await connection.execute(
            select(versions.c.model, versions.c.label, versions.c.manifest, versions.c.digest)
            .where(versions.c.state != "deleted")
            .order_by(versions.c.created_at)
        )
        for row in rows:
            reference = f"{row.model}:{row.label}"
            try:
                known.append(_Version(reference=reference, manifest=read_manifest(row.manifest, row.digest)))
            except Damaged as error:
                broken.append(_whole(reference, "the manifest", error.message))
        mine = (builds.c.model == versions.c.model) & (builds.c.label == versions.c.label)
        made = (
            select(builds.c.model, builds.c.label, builds.c.precision, builds.c.manifest)
            .join(versions, mine)
            .where(versions.c.state != "deleted", builds.c.manifest.is_not(None))
        )
        for row in await connection.execute(made):
            reference = f"{row.model}:{row.label} in {row.precision}"
            try:
                manifest = read_manifest(row.manifest, sha256_digest(row.manifest.encode()))
                known.append(_Version(reference=reference, manifest=manifest))
            except Damaged as error:
                broken.append(_whole(reference, "the manifest", error.message))
        for row in await connection.execute(select(stored_files)):
            try:
                files[row.digest] = read_file(row)
            except Damaged as error:
                broken.append(_whole("", row.digest, error.message))
        there = (
            select(stored_blocks.c.name, stored_blocks.c.size)
            .join(packs, packs.c.id == stored_blocks.c.pack)
            .order_by(stored_blocks.c.pack, stored_blocks.c.start)
        )
        blocks = [_Named(row.name, row.size) for row in await connection.execute(there)]
    return known, files, blocks, broken


def _whole(version: str, file: str, reason: str) -> Damage:
    return Damage(version=version, file=file, tensors=(), start=0, end=0, reason=reason)


def _blocks(files: Iterable[StoredFile]) -> "set[_Named]":
    return {_Named(block.name, block.size) for file in files for block in file.recipe}


class _Named(msgspec.Struct, frozen=True, array_like=True):
    name: str
    size: int


async def _check_blocks(
    control: Control, files: dict[str, StoredFile], rows: list[_Named]
) -> AsyncIterator[tuple[str, int, str | None]]:
    """Every block that is stored or should be: its name, size, and what is wrong with it."""
    there = {row.name for row in rows}
    for block in _blocks(files.values()):
        if block.name not in there:
            yield block.name, 0, "it is gone"
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        places = await control.blobs.places(block.name for block in part)
        for block in part:
            if block.name not in places:
                continue  # swept meanwhile
            try:
                data = await asyncio.to_thread(control.blobs.read_block, block.name, places)
                name = await asyncio.to_thread(block_name, data)
            except FileNotFoundError:
                yield block.name, block.size, await _gone(control, block)
            except Damaged as error:
                yield block.name, block.size, error.message.rstrip(".")
            else:
                yield block.name, block.size, None if name == block.name else "its bytes are not those of its name"


async def _gone(control: Control, block: _Named) -> str | None:
    """What is wrong with a block whose pack is not there: nothing, if it was moved meanwhile."""
    places = await control.blobs.places([block.name])
    if block.name not in places:
        return None  # swept meanwhile
    try:
        data = await asyncio.to_thread(control.blobs.read_block, block.name, places)
    except FileNotFoundError:
        return f"its pack {places[block.name].pack} is gone"
    except Damaged as error:
        return error.message.rstrip(".")
    return None if block_name(data) == block.name else "its bytes are not those of its name"


async def _damage_of(
    control: Control, version: _Version, path: str, digest: str, files: dict[str, StoredFile], bad: dict[str, str]
) -> AsyncIterator[Damage]:
    file = files.get(digest)
    if file is None:
        try:
            async for _ in control.blobs.whole.stream(digest):
                pass
        except (NotFound, Damaged) as error:
            yield _whole(version.reference, path, error.message.rstrip("."))
        return
    at = 0
    tensors: tuple[Tensor, ...] | None = None
    for block in file.recipe:
        reason = bad.get(block.name)
        if reason is not None:
            if tensors is None:
                tensors = await tensors_of(control, version.manifest, path)
            names = tensors_between(tensors, at, at + block.size)
            yield Damage(
                version=version.reference, file=path, tensors=names, start=at, end=at + block.size, reason=reason
            )
        at += block.size


async def _unused(
    control: Control, files: dict[str, StoredFile], known: list[_Version], bad: dict[str, str]
) -> AsyncIterator[Damage]:
    """Damaged blocks of no version: of a push that goes on, or what the sweep has not taken yet."""
    used = {
        block.name
        for version in known
        for entry in version.manifest.files.values()
        if entry.digest in files
        for block in files[entry.digest].recipe
    }
    for name, reason in bad.items():
        if name not in used:
            yield _whole("", f"the block {name[:12]}, of no version", reason)


async def tensors_of(control: Control, manifest: Manifest, path: str) -> tuple[Tensor, ...]:
    """The tensors of a file of weights, by its own header or the `.xml` beside it; none if they cannot be had."""
    entry = manifest.files[path]
    try:
        if path.endswith(".safetensors"):
            length = header_length(await control.blobs.head(entry.digest, 9)) or 0
            return read_header(await control.blobs.head(entry.digest, min(length, MAX_HEADER)), entry.size, path)
        described = manifest.files.get(path.removesuffix(".bin") + ".xml")
        if path.endswith(".bin") and described is not None and described.size <= _MAX_XML:
            return read_constants(await control.blobs.get(described.digest))
    except (BadRequest, Damaged, NotFound, Unavailable):
        pass
    return ()
