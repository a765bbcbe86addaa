"""A whole file on its way in: hashed, cut into blocks and stored as its bytes come."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from penstock.core.digests import short
from penstock.core.errors import BadRequest, Unavailable
from penstock.registry.blocks import Block, Cutter, block_name, pack_recipe
from penstock.store.block_index import bind_file, discard_pack

if TYPE_CHECKING:
    from penstock.store.blobs import Blobs

_PACK = 32 << 20  # bytes of blocks that are written as one pack


class _Taking:
    def __init__(self, blobs: "Blobs") -> None:
        self._blobs = blobs
        self._waiting: list[tuple[Block, bytes]] = []
        self._waiting_bytes = 0
        self._wrote: list[tuple[str, float]] = []
        self.recipe: list[Block] = []

    async def add(self, blocks: list[bytes]) -> None:
        for data in blocks:
            block = Block(await asyncio.to_thread(block_name, data), len(data))
            self.recipe.append(block)
            self._waiting.append((block, data))
            self._waiting_bytes += len(data)
            if self._waiting_bytes >= _PACK:
                await self.store()

    async def store(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        there = await self._blobs.present(block.name for block, _ in waiting)
        new = {block.name: (block, data) for block, data in waiting if block.name not in there}
        if not new:
            return
        intake = await self._blobs.intake(tuple(block for block, _ in new.values()))
        try:
            for _, data in new.values():
                await intake.feed(data)
            sealed_at = await intake.finish()
        except BaseException:
            await intake.abort()
            raise
        self._wrote.append((intake.identity, sealed_at))

    async def forget(self) -> None:
        for identity, sealed_at in self._wrote:
            async with self._blobs.database.write() as connection:
                empty = await discard_pack(connection, identity, sealed_at)
            if empty:
                await asyncio.to_thread(self._blobs.packs.delete, identity)


async def take_whole(blobs: "Blobs", digest: str, source: AsyncIterator[bytes], size: int | None) -> int:
    """Store the file `digest`, whose bytes are `source`, and give its size.

    Raises:
        BadRequest: if the bytes are not those of `digest`, or not `size` many; nothing is stored then.
        Unavailable: if the store or the database cannot be written.
    """
    hashed = hashlib.sha256()
    cutter = Cutter(size)
    taking = _Taking(blobs)
    total = 0
    try:
        async for piece in source:
            total += len(piece)
            if size is not None and total > size:
                break
            await asyncio.to_thread(hashed.update, piece)
            await taking.add(cutter.feed(piece))
        _check(digest, hashed.hexdigest(), total, size)
        await taking.add(cutter.end())
        await taking.store()
        await _bind(blobs, digest, total, pack_recipe(taking.recipe))
    except BaseException:
        await taking.forget()
        raise
    return total


async def _bind(blobs: "Blobs", digest: str, size: int, raw: bytes) -> None:
    async with blobs.database.write() as connection:
        if not await bind_file(connection, digest, size, raw, blobs.clock()):
            raise Unavailable("What was stored was swept away meanwhile.", code="blobs_unavailable", retry_after=0.1)


def _check(digest: str, seen: str, total: int, size: int | None) -> None:
    if size is not None and total != size:
        more = "more" if total > size else f"{total}"
        raise BadRequest(f"The file {short(digest)} has {more} bytes where {size} were announced.", param="body")
    if "sha256:" + seen != digest:
        raise BadRequest(
            f"The bytes sent for {short(digest)} are those of {seen[:12]}.", param="digest", code="digest_mismatch"
        )
