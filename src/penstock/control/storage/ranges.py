"""Stretches of stored files, read in turn without holding the file."""

from collections.abc import AsyncIterator

from penstock.core.errors import Damaged
from penstock.registry.blocks import Block
from penstock.store.blobs import Blobs
from penstock.store.block_index import StoredFile


class Stretch:
    """Bytes `start` to `end` of a file, taken from front to back; at most one block is held at a time, beside what was asked for."""

    def __init__(self, blobs: Blobs, digest: str, file: StoredFile | None, start: int, end: int) -> None:
        self._digest = digest
        self._left = end - start
        self._held = b""
        self._pieces = _blocks(blobs, file, start, end) if file is not None else _whole(blobs, digest, start, end)

    async def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end.

        Raises:
            Damaged: if the file is shorter than it should be.
        """
        count = min(count, self._left)
        parts = [self._held]
        have = len(self._held)
        while have < count:
            piece = await anext(self._pieces, None)
            if piece is None:
                raise Damaged(f"The file {self._digest} ends before its time.")
            parts.append(piece)
            have += len(piece)
        held = b"".join(parts)
        self._held = held[count:]
        self._left -= count
        return held[:count]

    async def close(self) -> None:
        """Let go of what is open."""
        await self._pieces.aclose()  # type: ignore[attr-defined]


def covering(file: StoredFile, start: int, end: int) -> tuple[list[Block], int]:
    """The blocks that hold bytes `start` to `end`, and where in the file the first of them begins."""
    found: list[Block] = []
    at, first = 0, start
    for block in file.recipe:
        if at < end and at + block.size > start:
            if not found:
                first = at
            found.append(block)
        at += block.size
    return found, first


async def _blocks(blobs: Blobs, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
    found, at = covering(file, start, end)
    async for block, data in blobs.read(found):
        yield data[max(0, start - at) : max(0, end - at)]
        at += block.size


async def _whole(blobs: Blobs, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
    at = 0
    async for piece in blobs.stream(digest):
        if at + len(piece) > start:
            yield piece[max(0, start - at) : max(0, end - at)]
        at += len(piece)
        if at >= end:
            return
