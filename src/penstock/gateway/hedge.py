"""A second copy of a request, to another replica, when the first has not begun to answer in time: the first to answer wins.

Hedged requests: Dean and Barroso, "The tail at scale", CACM 56(2), 2013. The pool's budget bounds how many there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from penstock.core.errors import PenstockError
from penstock.gateway.call import Call
from penstock.gateway.tries import lost
from penstock.gateway.upstream import ELSEWHERE, UNREACHABLE, busy
from penstock.net.client import Response
from penstock.routing.member import Member

Send = Callable[[Call, Member], Awaitable[Response]]


async def hedged(call: Call, member: Member, failed: tuple[str, ...], send: Send) -> Response:
    """The answer of `member`, or of another replica if that begins first; the call holds the one that answered.

    An answer begins with the first byte of its body. The other one is given up: its connection closes, which stops the engine.

    Raises:
        PenstockError: as `send`; if both fail, of the one that failed last.
    """
    state, route = call.pool, call.route
    first = asyncio.create_task(_begun(send(call, member)))
    try:
        await asyncio.wait((first,), timeout=route.route.hedge_after_s if route is not None else None)
        balancer = state.balancer if state is not None else None
        if first.done() or balancer is None:
            return await first
        now = time.monotonic()
        other = None
        if balancer.hedges.take(balancer.asked, now):
            other = balancer.take(now, call.gateway.draw(), (*failed, member.replica.id))
            if other is None:
                balancer.hedges.give_back()
        if other is None:
            return await first
    except BaseException:
        _give_up(first)
        raise
    call.hedged = True
    earlier = call.dispatched_ns
    second = asyncio.create_task(_begun(send(call, other)))
    call.member = None  # which of the two it is comes out below
    running = {first: (member, earlier), second: (other, call.dispatched_ns)}
    try:
        response = await _race(call, running)
        if call.member is other:
            balancer.hedges.won += 1
        losers = [(loser.replica.id, since) for loser, since in running.values()]
        call.tries = (*call.tries, *[lost(call, "hedge", begin=since, replica=name) for name, since in losers])
        return response
    finally:
        now = time.monotonic()
        for task, (loser, since) in running.items():
            _give_up(task)
            if balancer.timed:  # it would have taken that long at least
                balancer.timing(loser, now - (call.started_ns + since) * 1e-9, stream=call.stream)
            balancer.ended(loser, None, now)


async def _race(call: Call, running: dict[asyncio.Task[Response], tuple[Member, int]]) -> Response:
    """The first answer that is one. Who has won, or failed last, is taken out of `running` and held by the call."""
    while True:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        task = next(iter(done))
        member, call.dispatched_ns = running.pop(task)
        call.member, call.replica = member, member.replica.id
        error = task.exception()
        if not running:
            return task.result()
        if error is None and task.result().status not in ELSEWHERE:
            return task.result()
        call.member = None
        ok: bool | None = False
        code = error.code if isinstance(error, PenstockError) else ""
        if error is None:
            code = str(task.result().status)
            ok = None if busy(task.result()) else False
            task.result().abort()
        call.tries = (*call.tries, lost(call, "failed", code))
        unreachable = isinstance(error, PenstockError) and error.code in UNREACHABLE
        if call.pool is not None:
            call.pool.balancer.ended(member, ok, time.monotonic(), unreachable=unreachable)


async def _begun(head: Awaitable[Response]) -> Response:
    """The answer, once some of its body is there."""
    response = await head
    try:
        await response.begun()
    except BaseException:
        response.abort()
        raise
    return response


def _give_up(task: asyncio.Task[Response]) -> None:
    if not task.done():
        task.cancel()
    elif not task.cancelled() and task.exception() is None:
        task.result().abort()
