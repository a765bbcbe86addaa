"""Packs: objects that hold blocks one after the other, written once under an id of their own and never changed.

A pack is complete and on the disk before anything refers to it, so that one whose writing broke off is only room to be freed.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from penstock.core.errors import Damaged, Unavailable
from penstock.store.writeback import EVERY, write_soon

Piece = bytes | bytearray | memoryview


class PackWriter(Protocol):
    """One pack while it is written. End it with `finish` or `abort`. Methods block: call them in a thread."""

    def write(self, pieces: Sequence[Piece]) -> None:
        """Append `pieces`.

        Raises:
            OSError: if they cannot be written.
        """
        ...

    def finish(self) -> None:
        """Return when the pack is on the disk, whatever happens to the machine.

        Raises:
            OSError: if it cannot be written.
        """
        ...

    def abort(self) -> None:
        """Leave nothing of it."""
        ...


class Packs(Protocol):
    """The port of what holds packs. Ids are ours: 32 hexadecimal digits.

    Attributes:
        far: each read is a request to another host.
    """

    far: bool

    def begin(self, identity: str) -> PackWriter:
        """A new pack.

        Raises:
            OSError: if it cannot be made.
        """
        ...

    def read(self, identity: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length` of a pack; blocks: call it in a thread.

        Raises:
            FileNotFoundError: if there is no such pack.
            Damaged: if it is shorter than that.
            Unavailable: if it cannot be read.
        """
        ...

    def open(self, identity: str) -> BinaryIO | None:
        """A pack as a file of this host, to be sent from and closed; None if packs are none. Blocks.

        Raises:
            FileNotFoundError: if there is no such pack.
            Unavailable: if it cannot be read.
        """
        ...

    def delete(self, identity: str) -> None:
        """Remove a pack; one that is not there is no error. Blocks.

        Raises:
            Unavailable: if it cannot be removed.
        """
        ...

    def list(self) -> AsyncIterator[tuple[str, int]]:
        """The id and size of every pack that is there, those included that nothing refers to."""
        ...


def pack_key(identity: str) -> str:
    """Where a pack lies within its store."""
    return f"packs/{identity[:2]}/{identity}"


class FolderPacks:
    """Packs as files below a folder; a finished one, and its name, are flushed to the disk."""

    far = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, identity: str) -> "_File":
        """See `Packs.begin`."""
        path = self._folder / pack_key(identity)
        fresh = not path.parent.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
        return _File(path, flush=(path.parent, path.parent.parent) if fresh else (path.parent,))

    def read(self, identity: str, start: int, length: int) -> bytes:
        """See `Packs.read`."""
        try:
            fd = os.open(self._folder / pack_key(identity), os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(fd, length, start)
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _failed(str(self._folder), error) from error
        if len(data) != length:
            raise Damaged(f"The pack {identity} is cut off.")
        return data

    def open(self, identity: str) -> BinaryIO | None:
        """See `Packs.open`."""
        try:
            return (self._folder / pack_key(identity)).open("rb", buffering=0)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _failed(str(self._folder), error) from error

    def delete(self, identity: str) -> None:
        """See `Packs.delete`."""
        try:
            (self._folder / pack_key(identity)).unlink(missing_ok=True)
        except OSError as error:
            raise _failed(str(self._folder), error) from error

    async def list(self) -> AsyncIterator[tuple[str, int]]:
        """See `Packs.list`."""

        def look() -> list[tuple[str, int]]:
            found = []
            for path in (self._folder / "packs").glob("*/*"):
                with suppress(FileNotFoundError):  # removed meanwhile
                    found.append((path.name, path.stat().st_size))
            return found

        for entry in await asyncio.to_thread(look):
            yield entry


class _File:
    def __init__(self, path: Path, flush: Sequence[Path]) -> None:
        self._path = path
        self._flush = flush  # folders that have come to hold something
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._size = 0
        self._begun = 0  # bytes that are on their way to the disk

    def write(self, pieces: Sequence[Piece]) -> None:
        left = [memoryview(piece) for piece in pieces if len(piece)]
        while left:
            wrote = os.writev(self._fd, left[:512])
            self._size += wrote
            while left and wrote >= len(left[0]):
                wrote -= len(left.pop(0))
            if wrote:
                left[0] = left[0][wrote:]
        if self._size - self._begun >= EVERY:
            write_soon(self._fd, self._begun, self._size - self._begun)
            self._begun = self._size

    def finish(self) -> None:
        try:
            os.fsync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1
        for folder in self._flush:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def abort(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with suppress(OSError):  # what is left is swept
            self._path.unlink(missing_ok=True)


class ObjectPacks:
    """Packs in any store that obstore speaks to: S3, memory."""

    far = True

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    def begin(self, identity: str) -> "_Object":
        """See `Packs.begin`."""
        return _Object(self._store, pack_key(identity), self._name)

    def read(self, identity: str, start: int, length: int) -> bytes:
        """See `Packs.read`."""
        if not length:
            return b""
        try:
            data = bytes(obstore.get_range(self._store, pack_key(identity), start=start, length=length))
        except FileNotFoundError:
            raise
        except (BaseError, OSError, ValueError) as error:
            if "range" in str(error).lower():
                raise Damaged(f"The pack {identity} is cut off.") from error
            raise _failed(self._name, error) from error
        if len(data) != length:
            raise Damaged(f"The pack {identity} is cut off.")
        return data

    def open(self, identity: str) -> BinaryIO | None:
        """See `Packs.open`."""
        return None

    def delete(self, identity: str) -> None:
        """See `Packs.delete`."""
        try:
            obstore.delete(self._store, pack_key(identity))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _failed(self._name, error) from error

    async def list(self) -> AsyncIterator[tuple[str, int]]:
        """See `Packs.list`."""
        try:
            async for batch in obstore.list(self._store, prefix="packs"):
                for entry in batch:
                    yield str(entry["path"]).rpartition("/")[2], int(entry["size"])
        except (BaseError, OSError) as error:
            raise _failed(self._name, error) from error


class _Object:
    def __init__(self, store: ObjectStore, key: str, name: str) -> None:
        self._store = store
        self._key = key
        self._name = name
        self._held: list[bytes] = []

    def write(self, pieces: Sequence[Piece]) -> None:
        self._held += [bytes(piece) for piece in pieces]

    def finish(self) -> None:
        data = b"".join(self._held)
        self._held.clear()
        try:
            obstore.put(self._store, self._key, data)
        except (BaseError, OSError) as error:
            raise _failed(self._name, error) from error

    def abort(self) -> None:
        self._held.clear()
        with suppress(BaseError, OSError):
            obstore.delete(self._store, self._key)


def _failed(name: str, error: BaseException) -> Unavailable:
    return Unavailable(
        f"The blob store {name} failed: {str(error).partition(chr(10))[0]}.",
        code="blobs_unavailable",
        retry_after=1.0,
        hint="Look for a full disk, missing rights or a wrong PENSTOCK_CONTROL_BLOBS.",
    )
