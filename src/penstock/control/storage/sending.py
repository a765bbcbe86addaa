"""Blocks on their way out: from the page cache straight into the socket where they lie as they are in packs on this disk."""

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import msgspec
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from penstock.control.context import Control
from penstock.control.sockets import Lender, Movers, lender_of
from penstock.core.errors import Damaged
from penstock.registry.blocks import Block
from penstock.store.blobs import Blobs
from penstock.store.block_index import Place

_AHEAD = 64  # blocks whose places are looked up together
_TYPE = "application/octet-stream"


def blocks_response(request: Request, control: Control, blocks: Sequence[Block]) -> Response:
    """The bytes of `blocks`, one after the other; zeros for one that cannot be read, which whoever checks it sees not to be it."""
    size = str(sum(block.size for block in blocks))
    lender = lender_of(request.scope)
    if lender is not None:
        return _SocketResponse(lender, control.movers, control.blobs, blocks, size)
    return _through_the_loop(control.blobs, blocks, size)


def _through_the_loop(blobs: Blobs, blocks: Sequence[Block], size: str) -> StreamingResponse:
    async def stream() -> AsyncIterator[bytes]:
        async for _, data in blobs.read(blocks, zeros=True):
            yield data

    return StreamingResponse(stream(), media_type=_TYPE, headers={"content-length": size})


class _SocketResponse(Response):
    def __init__(self, lender: Lender, movers: Movers, blobs: Blobs, blocks: Sequence[Block], size: str) -> None:
        super().__init__(media_type=_TYPE, headers={"content-length": size})
        self._lender = lender
        self._movers = movers
        self._blobs = blobs
        self._blocks = blocks
        self._size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head through the loop, and the blocks past it if that can be."""
        taken = self._movers.take()
        sock = self._lender.borrow() if taken else None
        if sock is None:
            if taken:
                self._movers.give_back()
            await _through_the_loop(self._blobs, self._blocks, self._size)(scope, receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._lender.flushed()
            for start in range(0, len(self._blocks), _AHEAD):
                await self._send(sock, self._blocks[start : start + _AHEAD])
            self._lender.answer_was_sent()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            self._lender.answer_broke_off()
        finally:
            sock.close()
            self._movers.give_back()

    async def _send(self, sock: socket.socket, blocks: Sequence[Block]) -> None:
        end = partial(sock.shutdown, socket.SHUT_RDWR)
        at = 0
        while at < len(blocks):
            places = await self._blobs.places(block.name for block in blocks[at:])
            at += await self._movers.run(partial(_send_some, sock, self._blobs, blocks[at:], places), end)
            if at < len(blocks):  # its pack is gone: it was moved to another since, or is damaged
                async for _, data in self._blobs.read(blocks[at : at + 1], zeros=True):
                    await self._movers.run(partial(sock.sendall, data), end)
                at += 1


class _Run(msgspec.Struct, kw_only=True):
    """Blocks that lie one after the other."""

    pack: str
    start: int
    length: int
    count: int


def _send_some(sock: socket.socket, blobs: Blobs, blocks: Sequence[Block], places: Mapping[str, Place]) -> int:
    """Send blocks from the first on; how many were sent: not all if a pack is not there."""
    at = 0
    while at < len(blocks):
        try:
            run = _run_at(blocks, at, places)
            file = None if run is None else blobs.packs.open(run.pack)
            if run is None or file is None:
                data = blobs.read_block(blocks[at].name, places)
        except (FileNotFoundError, Damaged):
            return at
        if run is None or file is None:
            sock.sendall(data)
            at += 1
            continue
        with file:
            sent = sock.sendfile(file, run.start, run.length)
        sock.sendall(bytes(run.length - sent))  # it is cut off
        at += run.count
    return at


def _run_at(blocks: Sequence[Block], at: int, places: Mapping[str, Place]) -> _Run | None:
    """The blocks from `at` on that lie one after the other as they are; None if that at `at` has to be put together."""
    first = places.get(blocks[at].name)
    if first is None or first.base is not None:
        return None
    run = _Run(pack=first.pack, start=first.start, length=first.length, count=1)
    for block in blocks[at + 1 :]:
        place = places.get(block.name)
        if place is None or place.base is not None or (place.pack, place.start) != (run.pack, run.start + run.length):
            break
        run.length += place.length
        run.count += 1
    return run
