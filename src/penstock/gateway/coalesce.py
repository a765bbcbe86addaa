"""Between recall and reserve: equal requests of one tenant that run at the same time share one answer.

The first of them starts a flight: one walk through reserve, admit, dispatch and relay, in a task of its own, whose reply is a
recording. Whoever asked, the first one too, is a member: it gets what was recorded from the beginning, then what comes, at its own
pace. Members may leave as they like; the flight goes on until the last has left. It is reserved and settled on the account of
the first. Of the members that are there at the end the eldest is told its usage and cost, all others none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast

from penstock.core.errors import PenstockError, RateLimited, Unavailable, UpstreamFailed, UpstreamTimeout
from penstock.core.exchange import Opened
from penstock.gateway.call import Call
from penstock.gateway.dispatch import release
from penstock.gateway.index import Caller
from penstock.gateway.recall import directives_of, question_key, repeatable
from penstock.gateway.record import exchange_of, reply_lines
from penstock.gateway.settle import cost, reserve, settle, try_reserve, used
from penstock.gateway.stream import SSE_LINES
from penstock.net.reply import Reply

_KEPT_BYTES = 1048576  # of a stream; one that grows longer takes no more members, and loses those that lag by more
_AHEAD_BYTES = 65536  # that the engine may be ahead of the quickest member
_PIECE_BYTES = 65536
_NOT_THEIRS = (UpstreamFailed, UpstreamTimeout, Unavailable, RateLimited)  # errors that another attempt may not meet

Answer = Callable[[Call, Caller], Awaitable[None]]


async def share(call: Call, caller: Caller, answer: Answer) -> bool:
    """Answers `call` together with the equal ones in flight; False if it has to be answered on its own.

    That is so where its answer may not be given to another (as for the cache), and for those who joined a flight that failed
    before the first byte: they try for themselves.

    Raises:
        PenstockError: why the flight failed.
    """
    key = _key(call)
    if key is None:
        return False
    flights = call.gateway.flights
    flight = flights.get(key)
    mine = flight is None
    if flight is None:
        flight = flights[key] = Flight(call, caller, answer, key)
    label, kept, keeps = call.cache, call.kept, call.keeps
    call.kept, call.keeps = None, False
    if not mine:
        call.cache = "coalesced"
        call.gateway.meters.cell("penstock_coalesced_total", flight.route).value += 1
    member = flight.join(call)
    over = False
    try:
        await _follow(call, flight, member)
        over = True
    finally:
        flight.leave(member, over=over)
    failure = flight.error
    if failure is not None and not mine and not call.status and isinstance(failure, _NOT_THEIRS):
        call.cache, call.kept, call.keeps = label, kept, keeps
        return False
    await flight.end(member)
    if call.stream and not call.reply.started:
        _begin(call, flight)
    return True


def _key(call: Call) -> bytes | None:
    route = call.route
    if route is None or not repeatable(call, route.route.cache):
        return None
    control = call.request.headers.get(b"cache-control")
    if control is not None and directives_of(control) & {b"no-store", b"no-cache"}:
        return None
    key = (call.cache_key or question_key(call)) + (b"u" if call.envelope.wants_usage else b"")
    models = call.caller.models if call.caller is not None else None
    if route.fallbacks and models is not None:  # they decide which of these may answer
        key += " ".join(sorted(models)).encode()
    return key


async def _follow(call: Call, flight: Flight, member: Member) -> None:
    reply = call.reply
    while True:
        data = flight.take(member)
        if data:
            if not call.status:
                _begin(call, flight)
                await call.gateway.journal.committed()
            call.chunks += data.count(b"\n\n")
            reply.write(data)
            if reply.blocked:
                await reply.drain()
        elif flight.done:
            return
        else:
            await flight.news(member)


def _begin(call: Call, flight: Flight) -> None:
    flight.tell(call)
    call.status = 200
    call.first_ns = time.monotonic_ns() - call.started_ns
    call.reply.start(200, (), SSE_LINES + reply_lines(call))
    call.gateway.journal.append(Opened(exchange=exchange_of(call)))


class Member:
    """One of those who share a flight."""

    __slots__ = ("at", "call", "read", "waiter")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.at = 0  # the piece that it reads next
        self.read = 0  # bytes
        self.waiter: asyncio.Future[None] | None = None


class Flight:
    """One request for many, and the recording of its answer.

    Attributes:
        route: the route's name.
        done: nothing more will come.
        error: why it failed, if it did.
    """

    def __init__(self, call: Call, caller: Caller, answer: Answer, key: bytes) -> None:
        self.route = call.route.route.name if call.route is not None else ""
        self.done = False
        self.error: PenstockError | None = None
        self._key = key
        self._flights = call.gateway.flights
        self._members: dict[Member, None] = {}
        self._eldest: Member | None = None  # at the end
        self._pieces: list[bytes] = []
        self._base = 0  # the number of the first piece that is kept
        self._size = self._total = 0  # bytes kept, and bytes that came
        self._room: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._call = own = call.twin()
        self._first = call.reply
        own.reply = cast("Reply", Recording(self))
        own.quiet = True
        self._task = self._loop.create_task(self._run(caller, answer))

    async def _run(self, caller: Caller, answer: Answer) -> None:
        call = self._call
        ok: bool | None = True
        try:
            if not try_reserve(call):
                await reserve(call)
            await answer(call, caller)
        except PenstockError as error:
            self.error = error
            ok = not isinstance(error, UpstreamFailed | UpstreamTimeout)
        except asyncio.CancelledError:
            ok = None
            call.outcome = "cancelled"
            raise
        finally:
            usage = used(call)
            release(call, usage, ok=ok)
            settle(call, usage, cost(call, usage))
            self.done = True
            self._eldest = next(iter(self._members), None)
            self._close()
            self._wake()
            call.draft = call.response = call.setback = None
            call.reply = self._first  # whose recording leads here: a circle through a call is never collected

    @property
    def members(self) -> int:
        """How many share it now."""
        return len(self._members)

    # -- for members -----------------------------------------------------------------------------------------------------

    def join(self, call: Call) -> Member:
        """A new member, from the beginning on."""
        member = Member(call)
        self._members[member] = None
        return member

    def leave(self, member: Member, *, over: bool) -> None:
        """The member has all that there is (`over`), or its client left; the last one to leave ends what still runs."""
        del self._members[member]
        if over:
            return
        if self.done:
            self._bill(member.call, pays=member is self._eldest)
        elif not self._members:
            self._bill(member.call, pays=True)
            self._close()
            self._task.cancel()
        self._go_on()

    async def end(self, member: Member) -> None:
        """Tells a member that stayed to the end what became of the flight.

        Raises:
            PenstockError: why it failed.
        """
        call, own = member.call, self._call
        self.tell(call)
        self._bill(call, pays=member is self._eldest)
        if self.error is not None:
            raise self.error
        if not own.status:
            await self._task  # which raises what nobody foresaw
        call.last_ns = time.monotonic_ns() - call.started_ns
        call.quality = own.quality
        call.finish, call.findings, call.chunks, call.tail = own.finish, own.findings, own.chunks, own.tail
        if call.captured:
            call.kept = own.kept
        if not call.stream:
            call.status, call.first_ns = own.status, call.last_ns

    def take(self, member: Member) -> bytes:
        """What the member has not read yet, or a part of it; b"" if there is nothing now.

        Raises:
            Unavailable: if it was too slow, and that is not kept any more.
        """
        start = member.at - self._base
        if start < 0:
            raise Unavailable(
                "The client was too slow for an answer that it shares with others.", code="client_too_slow"
            )
        pieces: list[bytes] = []
        size = 0
        while size < _PIECE_BYTES and start + len(pieces) < len(self._pieces):
            piece = self._pieces[start + len(pieces)]
            pieces.append(piece)
            size += len(piece)
        member.at += len(pieces)
        member.read += size
        self._go_on()
        return b"".join(pieces)

    async def news(self, member: Member) -> None:
        """Returns when there may be more to take."""
        member.waiter = self._loop.create_future()
        try:
            await member.waiter
        finally:
            member.waiter = None

    def tell(self, call: Call) -> None:
        """Notes in a member's call who answers."""
        own = self._call
        call.leg, call.pool, call.digest = own.leg, own.pool, own.digest
        call.replica, call.attempts = own.replica, own.attempts
        call.escalated, call.fallback, call.hedged, call.resumed = own.escalated, own.fallback, own.hedged, own.resumed

    def _bill(self, call: Call, *, pays: bool) -> None:
        """Puts what was used on the account of a member that `pays`; the others have used nothing."""
        if not pays:
            return
        own = self._call
        self.tell(call)
        call.usage, call.usage_event, call.keeps, call.cache_key = own.usage, own.usage_event, own.keeps, own.cache_key
        call.kept = own.kept
        call.tried, call.spent, call.chunks = own.tried, own.spent, own.chunks
        if own.dispatched_ns:
            call.dispatched_ns = max(1, own.dispatched_ns + own.started_ns - call.started_ns)

    # -- for the recording -----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Records a piece."""
        self._pieces.append(data)
        self._size += len(data)
        self._total += len(data)
        if self._size > _KEPT_BYTES:
            self._close()
            self._forget()
        self._wake()

    @property
    def ahead(self) -> bool:
        """Whether even the quickest member has yet to read a good part."""
        return self._total - max((member.read for member in self._members), default=0) > _AHEAD_BYTES

    async def drain(self) -> None:
        """Returns when the quickest member has read enough."""
        while self.ahead:
            self._room = self._loop.create_future()
            await self._room

    def _forget(self) -> None:
        count = 0
        while self._size > _KEPT_BYTES and count < len(self._pieces) - 1:
            self._size -= len(self._pieces[count])
            count += 1
        del self._pieces[:count]
        self._base += count

    def _close(self) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    def _go_on(self) -> None:
        room = self._room
        if room is not None and not self.ahead:
            self._room = None
            if not room.done():
                room.set_result(None)

    def _wake(self) -> None:
        for member in self._members:
            if member.waiter is not None and not member.waiter.done():
                member.waiter.set_result(None)


class Recording:
    """What stands where a `Reply` stands, for a flight: the parts of it that a relay uses."""

    __slots__ = ("_flight", "finished", "gone", "started")

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self.started = self.finished = self.gone = False

    def start(self, _status: int, _headers: object, _lines: bytes = b"") -> None:
        """Each member starts its own reply."""
        self.started = True

    def write(self, data: bytes) -> None:
        """See `Reply.write`."""
        if data:
            self._flight.write(data)

    def pass_on(self, data: bytes, _framed: bytes) -> bool:
        """See `Reply.pass_on`."""
        self.write(data)
        return not self._flight.ahead

    @property
    def blocked(self) -> bool:
        """See `Reply.blocked`."""
        return self._flight.ahead

    async def drain(self) -> None:
        """See `Reply.drain`."""
        await self._flight.drain()
