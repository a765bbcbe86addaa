"""Blocks on their way in: received, checked against their names and written as one pack, hashed and written by threads meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Any

from blake3 import blake3

from penstock.core.errors import BadRequest, Unavailable
from penstock.registry.blocks import Recipe
from penstock.store.block_index import Place, drop_if_empty, drop_pack, seal_pack
from penstock.store.packs import Packs, PackWriter
from penstock.store.sql import Database

_TURN = 1 << 20  # bytes that are handed to a thread at a time


class Intake:
    """One pack being filled with the blocks of a recipe, in their order. Feed it, then `finish`; else `abort`.

    Attributes:
        identity: of the pack.
        pieces: after `finish`, the bytes of each block by its name, as they came.
    """

    def __init__(
        self, *, database: Database, packs: Packs, identity: str, recipe: Recipe, clock: Callable[[], float]
    ) -> None:
        self.pieces: dict[str, list[memoryview]] = {}
        self._database = database
        self._packs = packs
        self.identity = identity
        self._recipe = recipe
        self._clock = clock
        self._writer: PackWriter | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._left = sum(block.size for block in recipe)
        self._working: asyncio.Future[Any] | None = None
        self._number = 0  # of the block that is being hashed
        self._missing = recipe[0].size if recipe else 0  # bytes of it that have not come
        self._hashed = blake3()
        self._current: list[memoryview] = []

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
        assert self._writer is not None
        self._writer.write(pieces)
        for piece in pieces:
            view = memoryview(piece)
            while view:
                part = view[: self._missing]
                self._hashed.update(part)
                self._current.append(part)
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
        self.pieces[block.name] = self._current
        self._current = []
        self._hashed = blake3()
        self._number += 1
        self._missing = self._recipe[self._number].size if self._number < len(self._recipe) else 0


def _told(error: OSError) -> Unavailable:
    return Unavailable(
        f"The blob store failed: {error.strerror or error}.",
        code="blobs_unavailable",
        retry_after=1.0,
        hint="Look for a full disk, missing rights or a wrong PENSTOCK_CONTROL_BLOBS.",
    )
