"""The SHA-256 of files whose blocks are being put, computed while they come.

A manifest names a file by its SHA-256, a store keeps it as blocks that are named by their BLAKE3. Here the two are bound: each block is
checked against its name as it arrives, and given to the file's SHA-256 in the file's order, from memory if it has just come, from the
store if it was there before. So the bytes that come are not read again, and what is stored already is read once.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from penstock.core.errors import Conflict, Damaged
from penstock.registry.blocks import Recipe, block_name
from penstock.store.blobs import Blobs
from penstock.store.block_index import Place
from penstock.store.buffers import Buffer

_MEMORY = 192 << 20  # bytes of blocks that wait for those before them, of all uploads
_UPLOADS = 256  # that are followed; others are read from the store when they are committed
_REST_S = 60.0  # after the last upload memory is given back
_LOOK = 64  # blocks whose places are asked for together


class _File:
    """One file: how far its hash has come."""

    def __init__(self, seal: str, recipe: Recipe) -> None:
        self.seal = seal
        self.recipe = recipe
        self.at = 0  # the next block
        self.hashed = hashlib.sha256()

    @property
    def whole(self) -> bool:
        return self.at == len(self.recipe)


class _Fresh(msgspec.Struct, frozen=True, kw_only=True):
    """A block that has just come."""

    size: int
    views: tuple[memoryview, ...]
    buffers: tuple[Buffer, ...]  # that they lie in, held

    def drop(self) -> None:
        for buffer in self.buffers:
            buffer.drop()


class _Upload:
    def __init__(self) -> None:
        self.files: list[_File] = []
        self.turn = 0  # the file that is being hashed
        self.fresh: dict[str, _Fresh] = {}
        self.absent: set[str] = set()  # blocks that are not stored yet
        self.waiting: str | None = None  # the block that nothing can go on without
        self.lock = asyncio.Lock()


class Binder:
    """Follows the uploads of one process. Only `came` may be called from other threads than the loop's."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._fresh_bytes = 0
        self._memory = (
            threading.Lock()
        )  # guards `_uploads`, `_fresh_bytes`, and `fresh`, `absent` and `waiting` of each
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, upload: str, files: Mapping[str, Recipe], absent: Iterable[str] = ()) -> None:
        """Hash `files`, by seal, as their blocks come, of which `absent` are to come; those of an upload that is followed already go on."""
        self._loop = asyncio.get_running_loop()
        with self._memory:
            held = self._uploads.get(upload)
            if held is None:
                held = self._uploads[upload] = _Upload()
                while len(self._uploads) > _UPLOADS:
                    self._drop(self._uploads.popitem(last=False)[1])
            held.absent = set(absent)
        known = {file.seal for file in held.files}
        held.files += [_File(seal, recipe) for seal, recipe in files.items() if seal not in known]
        self._wake(held)

    def forget(self, upload: str) -> None:
        """Follow it no longer."""
        with self._memory:
            held = self._uploads.pop(upload, None)
            if held is not None:
                self._drop(held)
        asyncio.get_running_loop().call_later(_REST_S, self._rest)

    def came(self, upload: str, name: str, views: Sequence[memoryview], buffers: Sequence[Buffer]) -> None:
        """A block of the upload has come and is right, though not on the disk yet. May be called in any thread."""
        size = sum(len(view) for view in views)
        with self._memory:
            held = self._uploads.get(upload)
            if held is None or name in held.fresh or not self._room(held, size):
                return
            for buffer in buffers:
                buffer.hold()
            self._uploads.move_to_end(upload)
            held.fresh[name] = _Fresh(size=size, views=tuple(views), buffers=tuple(buffers))
            self._fresh_bytes += size
            wanted = held.waiting == name
        if wanted and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake, held)

    def stored(self, upload: str, names: Iterable[str]) -> None:
        """Blocks of the upload are on the disk."""
        with self._memory:
            held = self._uploads.get(upload)
            if held is None:
                return
            held.absent.difference_update(names)
        self._wake(held)

    async def digests(self, upload: str, files: Mapping[str, Recipe]) -> dict[str, str]:
        """Seal -> digest of each of `files`, all of whose blocks are there.

        Raises:
            Conflict: if blocks are missing.
            Damaged: if a block that was stored before cannot be read.
        """
        self.follow(upload, files)
        held = self._uploads[upload]
        async with held.lock:  # one that was announced with other blocks before is waited for no more
            held.files = [file for file in held.files if file.seal in files]
            held.turn = 0
        await self._go_on(held)
        found = {}
        for file in held.files:
            if not file.whole:
                raise Conflict("Blocks of the upload are not there yet.", code="blobs_missing")
            found[file.seal] = "sha256:" + file.hashed.hexdigest()
        return found

    def _rest(self) -> None:
        if not self._uploads:
            self._blobs.buffers.rest()

    def _room(self, mine: _Upload, size: int) -> bool:
        """Whether a block may wait in memory; blocks of an upload of which nothing has come for longest give way."""
        for held in self._uploads.values():
            if self._fresh_bytes + size <= _MEMORY and not self._blobs.buffers.scarce:
                break
            if held is not mine:
                self._drop(held)
        return self._fresh_bytes + size <= _MEMORY and not self._blobs.buffers.scarce

    def _drop(self, held: _Upload) -> None:
        for fresh in held.fresh.values():
            self._fresh_bytes -= fresh.size
            fresh.drop()
        held.fresh.clear()

    def _wake(self, held: _Upload) -> None:
        if not held.lock.locked():
            task = asyncio.create_task(self._go_on(held), name="hash an upload")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the commit meets it again, and tells it

    async def _go_on(self, held: _Upload) -> None:
        """Hash as far as blocks are there."""
        async with held.lock:
            while True:
                await asyncio.to_thread(self._hash_fresh, held)
                if held.turn == len(held.files):
                    return
                file = held.files[held.turn]
                with self._memory:
                    name = file.recipe[file.at].name
                    if name in held.fresh:
                        continue
                    held.waiting = name
                    if name in held.absent:
                        return
                if not await self._hash_stored(held, file) and not self._has_come(held, name):
                    return

    def _has_come(self, held: _Upload, name: str) -> bool:
        with self._memory:
            return name in held.fresh

    def _hash_fresh(self, held: _Upload) -> None:
        """Hash the blocks that have just come, as far as they follow one another."""
        while held.turn < len(held.files):
            file = held.files[held.turn]
            if file.whole:
                held.turn += 1
                continue
            with self._memory:
                fresh = held.fresh.pop(file.recipe[file.at].name, None)
                if fresh is None:
                    return
                self._fresh_bytes -= fresh.size
            for view in fresh.views:
                file.hashed.update(view)
            fresh.drop()
            file.at += 1

    async def _hash_stored(self, held: _Upload, file: _File) -> bool:
        """Hash blocks that are in the store, as far as they follow one another; whether the next one was."""
        ahead = []
        with self._memory:
            for block in file.recipe[file.at : file.at + _LOOK]:
                if block.name in held.fresh or block.name in held.absent:
                    break
                ahead.append(block)
        places: dict[str, Place] = await self._blobs.places(block.name for block in ahead)
        there = [block for block in ahead if block.name in places]
        if there != ahead:
            there = ahead[: next(i for i, block in enumerate(ahead) if block.name not in places)]
        async for block, data in self._blobs.read(there):
            await asyncio.to_thread(_update_checked, file, block.name, data)
            file.at += 1
        return bool(there)


def _update_checked(file: _File, name: str, data: bytes) -> None:
    # What has rotted on the disk would give the file a SHA-256 that is not its own, for every push of it to come.
    if block_name(data) != name:
        raise Damaged(
            f"The block {name[:12]} is damaged in the store.", hint="penstock models fsck --forget, and push again."
        )
    file.hashed.update(data)
