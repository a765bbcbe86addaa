"""The SHA-256 of files whose blocks are being put, computed while they come.

A manifest names a file by its SHA-256, a store keeps it as blocks that are named by their BLAKE3. Here the two are bound: each block is
checked against its name as it arrives, and given to the file's SHA-256 in the file's order, from memory if it has just come, from the
store if it was there before. So the bytes that come are not read again, and what is stored already is read once.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from penstock.core.errors import Conflict, Damaged
from penstock.registry.blocks import Recipe, block_name
from penstock.store.blobs import Blobs
from penstock.store.block_index import Place

_MEMORY = 192 << 20  # bytes of blocks that wait for those before them, of all uploads
_UPLOADS = 256  # that are followed; others are read from the store when they are committed
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


class _Upload:
    def __init__(self) -> None:
        self.files: list[_File] = []
        self.turn = 0  # the file that is being hashed
        self.fresh: dict[str, Sequence[memoryview]] = {}
        self.fresh_bytes = 0
        self.lock = asyncio.Lock()


class Binder:
    """Follows the uploads of one process."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, upload: str, files: Mapping[str, Recipe]) -> None:
        """Hash `files`, by seal, as their blocks come; those of an upload that is followed already go on."""
        held = self._uploads.get(upload)
        if held is None:
            held = self._uploads[upload] = _Upload()
            while len(self._uploads) > _UPLOADS:
                self._uploads.popitem(last=False)
        known = {file.seal for file in held.files}
        held.files += [_File(seal, recipe) for seal, recipe in files.items() if seal not in known]

    def forget(self, upload: str) -> None:
        """Follow it no longer."""
        self._uploads.pop(upload, None)

    def came(self, upload: str, pieces: Mapping[str, Sequence[memoryview]]) -> None:
        """Blocks have come, and are stored; `pieces` are the bytes of each."""
        held = self._uploads.get(upload)
        if held is None:
            return
        room = _MEMORY - sum(one.fresh_bytes for one in self._uploads.values())
        for name, views in pieces.items():
            size = sum(len(view) for view in views)
            if size <= room and name not in held.fresh:
                held.fresh[name] = views
                held.fresh_bytes += size
                room -= size
        if not held.lock.locked():
            task = asyncio.create_task(self._go_on(held), name=f"hash {upload}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

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

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the commit meets it again, and tells it

    async def _go_on(self, held: _Upload) -> None:
        async with held.lock:
            while held.turn < len(held.files):
                file = held.files[held.turn]
                if not await self._hash(held, file):
                    return
                held.turn += 1

    async def _hash(self, held: _Upload, file: _File) -> bool:
        """Hash as far as blocks are there; whether that is to the end."""
        places: dict[str, Place] = {}
        while not file.whole:
            block = file.recipe[file.at]
            views = held.fresh.pop(block.name, None)
            if views is not None:
                held.fresh_bytes -= block.size
                await asyncio.to_thread(_update, file, views)
            else:
                if block.name not in places:
                    ahead = file.recipe[file.at : file.at + _LOOK]
                    places = await self._blobs.places(one.name for one in ahead)
                if block.name not in places:
                    return False
                async for _, data in self._blobs.read([block]):
                    await asyncio.to_thread(_update_checked, file, block.name, data)
            file.at += 1
        return True


def _update(file: _File, views: Sequence[memoryview]) -> None:
    for view in views:
        file.hashed.update(view)


def _update_checked(file: _File, name: str, data: bytes) -> None:
    # What has rotted on the disk would give the file a SHA-256 that is not its own, for every push of it to come.
    if block_name(data) != name:
        raise Damaged(
            f"The block {name[:12]} is damaged in the store.", hint="penstock models fsck --forget, and push again."
        )
    file.hashed.update(data)
