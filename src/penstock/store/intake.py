"""Blocks on their way in: received, checked against their names and appended to one pack, by a thread."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from blake3 import blake3

from penstock.core.errors import BadRequest, Unavailable
from penstock.registry.blocks import Recipe
from penstock.store.block_index import Place, drop_if_empty, drop_pack, seal_pack
from penstock.store.buffers import Buffer, Buffers
from penstock.store.packs import Packs, PackWriter
from penstock.store.sql import Database

_TURN = (
    1 << 20
)  # bytes that are handed to a thread at a time, and received at a time: they stay in the processor's cache


class Source(Protocol):
    """Where bytes are received from, by a thread."""

    left: int  # bytes that are still to come

    def readinto(self, view: memoryview) -> int:
        """Receive some bytes, at least one, at most as many as there is room for.

        Raises:
            OSError: if it breaks off.
        """
        ...


class Came(Protocol):
    """Called in a thread with each block that was seen to be that of its name, before it is on the disk."""

    def __call__(self, name: str, views: Sequence[memoryview], buffers: Sequence[Buffer]) -> None:
        """`views` are its bytes, good as long as `buffers` are held."""
        ...


class Intake:
    """One pack being filled with the blocks of a recipe, in their order. `feed` it or let it `receive`, then `finish`; else `abort`.

    Attributes:
        identity: of the pack.
    """

    def __init__(
        self,
        *,
        database: Database,
        packs: Packs,
        buffers: Buffers,
        identity: str,
        recipe: Recipe,
        clock: Callable[[], float],
        came: Came | None,
    ) -> None:
        self._database = database
        self._packs = packs
        self._buffers = buffers
        self.identity = identity
        self._recipe = recipe
        self._clock = clock
        self._came = came
        self._writer: PackWriter | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._left = sum(block.size for block in recipe)
        self._working: asyncio.Future[Any] | None = None
        self._number = 0  # of the block that is being hashed
        self._missing = recipe[0].size if recipe else 0  # bytes of it that have not come
        self._hashed = blake3()
        self._current: list[memoryview] = []
        self._within: list[Buffer] = []  # the buffers that `_current` lies in, each held

    async def begin(self) -> None:
        """Make the pack, whose row is there.

        Raises:
            Unavailable: if the store cannot be written.
        """
        try:
            self._writer = await asyncio.to_thread(self._packs.begin, self.identity)
        except OSError as error:
            raise _told(error) from error

    async def feed(self, piece: bytes) -> None:
        """The next bytes; may wait until those before them are written.

        Raises:
            BadRequest: if they are more than announced, or a block is not that of its name.
            Unavailable: if the store cannot be written.
        """
        self._left -= len(piece)
        if self._left < 0:
            raise BadRequest("The body has more bytes than the blocks that it names.", param="body")
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes >= _TURN:
            await self._turn()

    def receive(self, source: Source) -> None:
        """All bytes of `source`, which holds those of the blocks; call it in a thread, and nothing else meanwhile.

        Raises:
            BadRequest: if `source` has more bytes than announced, or a block is not that of its name.
            Unavailable: if the store cannot be written.
            OSError: if `source` breaks off.
        """
        if source.left > self._left:
            raise BadRequest("The body has more bytes than the blocks that it names.", param="body")
        while source.left:
            buffer = self._buffers.take()
            try:
                at = 0
                while source.left and at < len(buffer.view):
                    count = source.readinto(buffer.view[at : at + _TURN])
                    piece = buffer.view[at : at + count]
                    try:
                        self._write([piece])
                    except OSError as error:
                        raise _told(error) from error
                    self._hash(piece, buffer)
                    self._left -= count
                    at += count
            finally:
                buffer.drop()

    async def finish(self) -> float:
        """Return when all blocks are on the disk and count; the time by which their rows were touched.

        Raises:
            BadRequest: if bytes are missing, or a block is not that of its name.
            Unavailable: if the store or the database cannot be written.
        """
        if self._left:
            raise BadRequest(f"The body ends {self._left} bytes before the last block that it names.", param="body")
        await self._turn()
        await self._done()
        assert self._writer is not None
        try:
            await asyncio.to_thread(self._writer.finish)
        except OSError as error:
            raise _told(error) from error
        places = []
        at = 0
        for block in self._recipe:
            places.append(Place(name=block.name, size=block.size, pack=self.identity, start=at, length=block.size))
            at += block.size
        unique = list({place.name: place for place in places}.values())
        now = self._clock()
        async with self._database.write() as connection:
            await seal_pack(connection, self.identity, unique, at, now)
            empty = await drop_if_empty(connection, self.identity)
        if empty:  # all of it was there: whoever sends the same again and again fills no disk
            await asyncio.to_thread(self._packs.delete, self.identity)
        return now

    async def abort(self) -> None:
        """Leave nothing of it, as far as the store still answers."""
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)
        self._let_go()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.abort)
        async with self._database.write() as connection:
            await drop_pack(connection, self.identity)

    async def _turn(self) -> None:
        await self._done()
        pieces, self._held, self._held_bytes = self._held, [], 0
        if pieces:
            self._working = asyncio.get_running_loop().run_in_executor(None, self._work, pieces)

    async def _done(self) -> None:
        if self._working is not None:
            working, self._working = self._working, None
            try:
                await working
            except OSError as error:
                raise _told(error) from error

    def _work(self, pieces: list[bytes]) -> None:
        self._write(pieces)
        for piece in pieces:
            self._hash(memoryview(piece), None)

    def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        assert self._writer is not None
        self._writer.write(pieces)

    def _hash(self, view: memoryview, buffer: Buffer | None) -> None:
        while view:
            part = view[: self._missing]
            self._hashed.update(part)
            self._current.append(part)
            if buffer is not None and (not self._within or self._within[-1] is not buffer):
                buffer.hold()
                self._within.append(buffer)
            self._missing -= len(part)
            view = view[len(part) :]
            if not self._missing:
                self._end_block()

    def _end_block(self) -> None:
        block = self._recipe[self._number]
        seen = self._hashed.hexdigest()
        if seen != block.name:
            raise BadRequest(
                f"The bytes sent for the block {block.name[:12]} are those of {seen[:12]}.",
                param="body",
                code="digest_mismatch",
            )
        if self._came is not None:
            self._came(block.name, self._current, self._within)
        self._let_go()
        self._hashed = blake3()
        self._number += 1
        self._missing = self._recipe[self._number].size if self._number < len(self._recipe) else 0

    def _let_go(self) -> None:
        self._current = []
        within, self._within = self._within, []
        for buffer in within:
            buffer.drop()


def _told(error: OSError) -> Unavailable:
    return Unavailable(
        f"The blob store failed: {error.strerror or error}.",
        code="blobs_unavailable",
        retry_after=1.0,
        hint="Look for a full disk, missing rights or a wrong PENSTOCK_CONTROL_BLOBS.",
    )
