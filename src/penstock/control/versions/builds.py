"""Builds as folders: what an engine loads, written from the blobs to DATA/builds/DIGEST, checked byte for byte."""

import asyncio
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Control
from penstock.control.deploy.state import BuildInfo
from penstock.control.storage.fsck import tensors_of
from penstock.control.versions.contents import check_code_signed
from penstock.control.versions.signatures import valid_signatures
from penstock.core.digests import sha256_digest, short
from penstock.core.errors import Damaged, NotFound, Unavailable
from penstock.core.provenance import Provenance
from penstock.registry.blocks import Block, Recipe, block_name
from penstock.registry.builds import build_manifest, code_of
from penstock.registry.layout import tensors_between
from penstock.registry.manifest import Manifest, manifest_digest, read_manifest
from penstock.store.block_index import find_file
from penstock.store.nearby import Nearby
from penstock.store.schema import builds, versions


class Builds:
    """The folders of builds in one data folder."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._folder = control.data / "builds"
        self._nearby = Nearby(self._folder / "blocks.db")
        self._checked: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def folder(self, build: BuildInfo) -> Path:
        """The folder of `build`, whole and checked; written first if it is not there or was damaged.

        Raises:
            Damaged: if the stored bytes are damaged themselves.
            Unavailable: if it cannot be written.
        """
        path = self._folder / build.digest.removeprefix("sha256:")
        async with self._locks.setdefault(build.digest, asyncio.Lock()):
            if build.digest in self._checked and path.is_dir():
                return path
            manifest = await self._manifest(build)
            try:
                if not await asyncio.to_thread(_whole, path, manifest):
                    await self._write(path, manifest)
            except OSError as error:
                raise Unavailable(f"The build {path} cannot be written: {error.strerror or error}.") from error
            self._checked.add(build.digest)
        return path

    async def provenance(self, build: BuildInfo) -> tuple[Path, str, tuple[str, ...]]:
        """The file that tells an engine what `build` is made of and who vouches for it, the digest of what was committed, and the public keys of those.

        That is the version; of a build that was made here, the build itself.

        Raises:
            Conflict: if it brings code of its own and nobody who is trusted has signed it: no engine would load it.
            Unavailable: if it cannot be written.
        """
        async with self._control.database.read() as connection:
            text, digest = await _committed(connection, build)
            signed = await valid_signatures(connection, digest)
            manifest = read_manifest(text, digest)
            made_here = build.key.precision if digest != build.version_digest else ""
            name = f"{build.key.model}:{build.key.label}"
            await check_code_signed(connection, name, digest, code_of(manifest), made_here)
            part = build_manifest(manifest, build.folder)
            blocks = {}
            for entry in part.files.values() if part is not None else ():
                stored = await find_file(connection, entry.digest)
                if stored is not None:
                    blocks[entry.digest] = tuple((block.name, block.size) for block in stored.recipe)
        told = Provenance(
            version=name,
            manifest=text,
            folder=build.folder,
            envelopes=tuple(envelope for _, _, envelope in signed),
            blocks=blocks,
        )
        path = self._folder / f"{build.digest.removeprefix('sha256:')}.provenance.json"
        draft = path.with_name(f".{secrets.token_hex(8)}")
        try:
            await asyncio.to_thread(draft.write_bytes, msgspec.json.encode(told))
            draft.replace(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror or error}.") from error
        return path, digest, tuple(public for _, public, _ in signed)

    async def _manifest(self, build: BuildInfo) -> Manifest:
        async with self._control.database.read() as connection:
            text, digest = await _committed(connection, build)
        part = build_manifest(read_manifest(text, digest), build.folder)
        if part is None or manifest_digest(part) != build.digest:
            raise Damaged(f"The build {short(build.digest)} is not the folder {build.folder} of its version.")
        return part

    async def _write(self, path: Path, manifest: Manifest) -> None:
        temporary = self._folder / f".{secrets.token_hex(8)}"
        written: dict[str, Recipe] = {}
        try:
            for name, entry in manifest.files.items():
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    recipe: list[Block] = []
                    try:
                        async for block, piece in self._pieces(entry.digest):
                            await asyncio.to_thread(file.write, piece)
                            recipe += [] if block is None else [block]
                    except Damaged as error:
                        raise await self._where(manifest, name, file.tell(), error) from None
                    file.flush()
                    await asyncio.to_thread(os.fsync, file.fileno())
                written[name] = tuple(recipe)
            await asyncio.to_thread(_swap, temporary, path)
            for name, blocks in written.items() if self._control.blobs.packs.far else ():
                await asyncio.to_thread(self._nearby.add, path / name, blocks)
        finally:
            await asyncio.to_thread(shutil.rmtree, temporary, True)

    async def _where(self, manifest: Manifest, name: str, at: int, error: Damaged) -> Damaged:
        """The same error with the file, and the tensors that lie in the block that begins at `at`."""
        file = await self._control.blobs.file(manifest.files[name].digest)
        size = file.size if file is not None else manifest.files[name].size
        begin = 0
        for block in file.recipe if file is not None else ():
            if begin == at:
                size = block.size
                break
            begin += block.size
        tensors = tensors_between(await tensors_of(self._control, manifest, name), at, at + size)
        inside = f" In {' or '.join(tensors[:4])}." if tensors else ""
        return Damaged(
            f"{name} is damaged in the store: {error.message}{inside}", hint="penstock models fsck tells all."
        )

    async def _pieces(self, digest: str) -> AsyncIterator[tuple[Block | None, bytes]]:
        """The bytes of a file, checked; from builds that lie here already, as far as the store is further away."""
        file = await self._control.blobs.file(digest) if self._control.blobs.packs.far else None
        if file is None:
            async for piece in self._control.blobs.stream(digest):
                yield None, piece
            return
        known = await asyncio.to_thread(self._nearby.known, file.recipe)
        for near, run in itertools.groupby(file.recipe, key=lambda block: block.name in known):
            asked: list[Block] = []
            for block in run:
                data = await asyncio.to_thread(self._nearby.find, block) if near else None
                if data is None:
                    asked.append(block)
                    continue
                async for other, bytes_of in self._fetched(asked):
                    yield other, bytes_of
                asked = []
                yield block, data
            async for other, bytes_of in self._fetched(asked):
                yield other, bytes_of

    async def _fetched(self, blocks: Sequence[Block]) -> AsyncIterator[tuple[Block, bytes]]:
        async for block, data in self._control.blobs.read(blocks):
            if await asyncio.to_thread(block_name, data) != block.name:
                raise Damaged(f"The block {block.name[:12]} is damaged in the store.")
            yield block, data


async def _committed(connection: AsyncConnection, build: BuildInfo) -> tuple[str, str]:
    """The manifest in which the build's folder stands, and its digest: of the build itself if it was made here, else of its version.

    Raises:
        NotFound: if there is no such version.
    """
    made = select(builds.c.manifest).where(
        builds.c.model == build.key.model,
        builds.c.label == build.key.label,
        builds.c.digest == build.digest,
        builds.c.manifest.is_not(None),
    )
    text = (await connection.execute(made.limit(1))).scalar_one_or_none()
    if text is not None:
        return text, attested_digest(text)
    statement = select(versions.c.manifest, versions.c.digest).where(
        versions.c.model == build.key.model, versions.c.label == build.key.label
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise NotFound(f"There is no version {build.key.model}:{build.key.label}.")
    return row.manifest, row.digest


def attested_digest(manifest: str) -> str:
    """What a signature of a build that was made here is of: its manifest, as it stands in its row."""
    return sha256_digest(manifest.encode())


def _swap(temporary: Path, path: Path) -> None:
    if path.exists():  # damaged: what runs from it keeps its open files
        shutil.rmtree(path)
    temporary.rename(path)


def _whole(path: Path, manifest: Manifest) -> bool:
    if not path.is_dir():
        return False
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and not file.is_symlink()}
    if found != set(manifest.files):
        return False
    for name, entry in manifest.files.items():
        with (path / name).open("rb") as file:
            if "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() != entry.digest:
                return False
    return True
