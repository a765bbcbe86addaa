"""Bodies that go between a connection's socket and a thread, past the event loop.

uvicorn hands a body on in pieces of 64 KiB, copies each twice more and wakes the application for it, which costs more than all that is done
with the bytes. Here it reads a request's head and asks the application as ever; an endpoint that has seen that the caller may send or
fetch much then borrows the socket for as long as the body lasts.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar

import httptools
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from penstock.control.heads import BoundedHead
from penstock.net.loopback import keep_in_cache
from penstock.store.intake import Intake

_LENDER = "penstock.lender"  # in the scope's `state`
IDLE_S = 60.0  # for which nothing may move
_WAKE = 64 << 10  # bytes that are worth waking up for
_SCRATCH = 1 << 20

Found = TypeVar("Found")


class Movers:
    """The threads that move bodies; each body has one at most. They are started when they are needed first."""

    def __init__(self, most: int = 8) -> None:
        self._free = most
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="mover")

    def take(self) -> bool:
        """Take a thread for one body; False if none is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """The body is over."""
        self._free += 1

    async def run(self, work: Callable[[], Found], end: Callable[[], None]) -> Found:
        """What `work` gives, done in a thread that was taken; if the caller is cancelled, `end` makes it break off, and is waited for."""
        working = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            end()
            await asyncio.wait({working})
            working.exception()  # it was told to break off
            raise


class Lender:
    """One request's connection, whose socket may be borrowed."""

    def __init__(self, connection: "LendingConnection") -> None:
        self._connection = connection
        self.cycle: RequestResponseCycle | None = None  # once the head is read

    def borrow(self) -> socket.socket | None:
        """The socket, to be closed; None if bytes cannot be moved past the loop."""
        connection = self._connection
        raw = connection.transport.get_extra_info("socket")
        if (
            raw is None
            or connection.scheme != "http"
            or connection.cycle is not self.cycle  # another request has come behind this one
            or connection.transport.is_closing()
        ):
            return None
        borrowed = socket.socket(fileno=os.dup(raw.fileno()))
        try:
            keep_in_cache(borrowed)
        except OSError:  # the other side is gone
            borrowed.close()
            return None
        borrowed.settimeout(IDLE_S)
        return borrowed

    def stop_reading(self) -> bytes | None:
        """Leave the rest of the request's body in the socket; what the loop has read of it. None if it has read all, or must say that it may come."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.waiting_for_100_continue:
            return None
        self._connection.flow.pause_reading()
        begun = bytes(cycle.body)
        cycle.body = bytearray()
        return begun

    def body_is_over(self) -> None:
        """All of the body was read from the socket: the next request's head comes next."""
        assert self.cycle is not None
        self.cycle.more_body = False
        self.cycle.message_event.set()
        self._connection.begin_anew()

    def body_broke_off(self) -> None:
        """Nobody knows where the next request begins: close once this one is answered."""
        assert self.cycle is not None
        self.cycle.keep_alive = False

    async def flushed(self) -> None:
        """Return when what was sent through the loop is in the kernel."""
        transport = self._connection.transport
        transport.set_write_buffer_limits(0)  # it tells the flow, if there is something left
        await self._connection.flow.drain()
        transport.set_write_buffer_limits()

    def answer_was_sent(self) -> None:
        """All that the head of the answer announced has been sent on the socket."""
        assert self.cycle is not None
        self.cycle.expected_content_length = 0

    def answer_broke_off(self) -> None:
        """The other side is gone."""
        assert self.cycle is not None
        self.cycle.disconnected = True
        self._connection.transport.abort()


class LendingConnection(BoundedHead):
    """uvicorn's connection; each request's scope names who lends its socket."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["state"][_LENDER] = Lender(self)

    def on_headers_complete(self) -> None:
        """Its head is read."""
        lender: Lender = self.scope["state"][_LENDER]
        super().on_headers_complete()
        lender.cycle = self.cycle

    def begin_anew(self) -> None:
        """What comes next is a request's head."""
        self.head_follows()
        if self.parser is not None:
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)


def lender_of(scope: Scope) -> Lender | None:
    """Who lends the socket of the request with this `scope`; None if it came otherwise."""
    found: Lender | None = scope.get("state", {}).get(_LENDER)
    return found


class LoopBody:
    """A request's body as the loop hands it on."""

    def __init__(self, request: Request) -> None:
        self._pieces = request.stream()
        self._held = b""

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        held = [self._held]
        have = len(self._held)
        while have < count:
            piece = await anext(self._pieces, None)
            if piece is None:
                break
            held.append(piece)
            have += len(piece)
        whole = b"".join(held)
        self._held = whole[count:]
        return whole[:count]

    async def into(self, intake: Intake) -> None:
        """Feed the rest to `intake`."""
        if self._held:
            await intake.feed(self._held)
        async for piece in self._pieces:
            if piece:
                await intake.feed(piece)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


class SocketBody:
    """A request's body as a thread reads it from the socket.

    Attributes:
        left: bytes that are still to come.
    """

    def __init__(self, lender: Lender, sock: socket.socket, begun: bytes, length: int, movers: Movers) -> None:
        self._lender = lender
        self._sock = sock
        self._begun = begun
        self.left = length
        self._movers = movers
        self._wake = 1
        self._broken = False

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        count = min(count, self.left)
        found = bytearray(count)

        def read() -> None:
            view, at = memoryview(found), 0
            while at < count:
                at += self.readinto(view[at:])

        await self._run(read)
        return bytes(found)

    async def into(self, intake: Intake) -> None:
        """Have `intake` receive the rest."""
        await self._run(lambda: intake.receive(self))

    def readinto(self, view: memoryview) -> int:
        """See `Source.readinto`."""
        if self._begun:
            count = min(len(view), len(self._begun))
            view[:count] = self._begun[:count]
            self._begun = self._begun[count:]
        else:
            self._wake_at(min(_WAKE, self.left, len(view)))
            count = self._sock.recv_into(view, min(len(view), self.left))
            if not count:
                raise ConnectionResetError("the body ended before its time")
        self.left -= count
        return count

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self.left and not self._broken:  # it was refused: who sends it reads the answer only when all is sent
                with suppress(ClientDisconnect):
                    await self._run(self._skip)
        finally:
            if self.left:
                self._lender.body_broke_off()
            else:
                self._wake_at(1)
                self._lender.body_is_over()
            self._sock.close()
            self._movers.give_back()

    def _skip(self) -> None:
        scratch = memoryview(bytearray(_SCRATCH))
        while self.left:
            self.readinto(scratch)

    def _wake_at(self, least: int) -> None:
        if least != self._wake and hasattr(socket, "SO_RCVLOWAT"):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._wake = least

    async def _run(self, work: Callable[[], None]) -> None:
        try:
            await self._movers.run(work, self._end)
        except OSError:  # of the socket alone: what the store fails with has been told as such
            self._broken = True
            raise ClientDisconnect from None

    def _end(self) -> None:
        self._broken = True
        self._sock.shutdown(socket.SHUT_RDWR)


def body_of(request: Request, movers: Movers, most: int) -> LoopBody | SocketBody:
    """The body of `request`, past the loop if it has a length of at most `most` and that can be. Use it in `async with`."""
    lender = lender_of(request.scope)
    if lender is None:
        return LoopBody(request)
    length = int(request.headers.get("content-length", "0"))
    if not 0 < length <= most or not movers.take():
        return LoopBody(request)
    borrowed = lender.borrow()
    begun = lender.stop_reading() if borrowed is not None else None
    if borrowed is None or begun is None:
        if borrowed is not None:
            borrowed.close()
        movers.give_back()
        return LoopBody(request)
    return SocketBody(lender, borrowed, begun, length, movers)
