"""Step 9: to the replica that knows the prompt or has the least to do; on to another one only as long as no byte of an answer has come."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from penstock.core.errors import PenstockError, Unavailable, UpstreamTimeout
from penstock.core.exchange import Try, Usage
from penstock.gateway.call import Call
from penstock.gateway.hedge import hedged
from penstock.gateway.settle import prompt_tokens
from penstock.gateway.tries import lost
from penstock.gateway.upstream import ELSEWHERE, UNREACHABLE, busy
from penstock.net.client import Response, parse_origin
from penstock.routing.affinity import prefix_chain
from penstock.routing.balancer import Balancer
from penstock.routing.member import Member

_FIELDS = {"chat": b'"messages"', "completions": b'"prompt"', "responses": b'"messages"'}  # what holds the prompt

_NOWHERE: tuple[list[int], str] = ([], "")


async def dispatch(call: Call) -> Response:
    """The head of a replica's answer. What it began is ended by `release`.

    One replica is asked after another, as many as the route allows and the pool's retry budget bears. Replicas in `call.avoid` are
    left out.

    Raises:
        UpstreamFailed: if every replica that was tried failed.
        UpstreamTimeout: if the replica did not answer in time: it may be at work, so no other one is asked.
        Unavailable: if no replica takes requests.
    """
    gateway, state, route = call.gateway, call.pool, call.route
    if state is None or route is None:
        raise Unavailable("The request leads to no pool.")
    balancer, plan = state.balancer, route.route
    failed = call.avoid
    refusal: Response | None = None  # kept until another replica has done better
    last, call.setback = call.setback, None
    before: Try | None = None  # the attempt that has failed, if another one is made
    chain, session = _affinity(call, balancer) if balancer.affine else _NOWHERE
    tries, queued = call.redone, False
    while tries < plan.attempts:
        now = time.monotonic()
        if tries and not balancer.retries.take(balancer.asked, now):
            break
        member = balancer.take(now, gateway.draw(), failed, chain, session)
        if member is None:
            if tries:
                balancer.retries.give_back()
            if not failed or queued or not balancer.knows_other(failed):
                break
            queued = True
            await _queue_again(call)
            continue
        tries += 1
        if before is not None:
            call.tries, before = (*call.tries, before), None
        try:
            response = await (send(call, member) if plan.hedge_after_s is None else hedged(call, member, failed, send))
        except PenstockError as error:
            unreachable = error.code in UNREACHABLE
            failed = (*failed, member.replica.id, call.replica)
            let_go(call, ok=None if isinstance(error, Unavailable) else False, unreachable=unreachable)
            if isinstance(error, UpstreamTimeout) and not unreachable:
                raise
            last = error
            before = lost(call, "failed", error.code)
            continue
        if refusal is not None:
            refusal.abort()
            refusal = None
        call.response = response
        if response.status not in ELSEWHERE:
            return response
        failed = (*failed, call.replica)
        let_go(call, ok=None if busy(response) else False)
        before = lost(call, "failed", str(response.status))
        refusal = response
    if refusal is not None:
        return refusal
    try:
        raise last or Unavailable(
            f"No replica of the pool {state.pool.name!r} takes requests now.", code="no_replica", retry_after=1
        )
    finally:
        del last  # it leads to this frame


async def _queue_again(call: Call) -> None:
    """Waits for a place at those that are well and have too much to do, instead of the one that has failed.

    Raises:
        RateLimited, Unavailable: as `PoolState.enter`.
    """
    state, place, caller = call.pool, call.place, call.caller
    if state is None or place is None or caller is None:
        return
    tokens = prompt_tokens(call)
    call.place = None
    state.leave(place, tokens, Usage())
    call.place = await state.enter(caller.tenant, tokens)


def _affinity(call: Call, balancer: Balancer) -> tuple[list[int], str]:
    """What tells where the request belongs: the hashes of its prompt's beginnings, or whose it is."""
    if balancer.by_prefix:
        field = _FIELDS.get(call.operation)
        if field is not None:
            seed = 0 if balancer.shared or call.caller is None else call.caller.seed
            return prefix_chain(call.body, field, seed), ""
    elif balancer.by_session:
        return [], call.session or call.user
    return [], ""


def send(call: Call, member: Member) -> Awaitable[Response]:
    """Sends the request to `member`, which the call holds from now on; the head of its answer is to be awaited."""
    replica = member.replica
    entry = call.leg.entry  # type: ignore[union-attr]
    origin = entry.origins.get(replica.id)
    if origin is None or origin.key != replica.url:  # the Snapshot has changed since this request began
        origin = parse_origin(replica.url)
    call.attempts += 1
    call.replica = replica.id
    call.member = member
    call.dispatched_ns = time.monotonic_ns() - call.started_ns
    return call.gateway.client.request(origin, b"POST", call.path, (), call.body, entry.timeouts, _lines(call))


def let_go(call: Call, *, ok: bool | None, unreachable: bool = False) -> None:
    """The replica that was asked has done its part, or not: as for `Balancer.ended`."""
    member, state = call.member, call.pool
    if member is not None and state is not None:
        call.member = None
        balancer = state.balancer
        if ok and call.first_ns and balancer.timed:
            balancer.timing(member, (call.first_ns - call.dispatched_ns) * 1e-9, stream=call.stream)
        balancer.ended(member, ok, time.monotonic(), unreachable=unreachable)
        if ok is False:
            state.resize()


def release(call: Call, usage: Usage, *, ok: bool | None) -> None:
    """Ends what `dispatch` and `admit` began; `ok` as for `Balancer.ended`. An answer that is not complete is given up."""
    if call.response is not None:
        call.response.abort()
    let_go(call, ok=ok)
    place = call.place
    if place is not None and call.pool is not None:
        call.place = None
        tried = call.tried  # was charged at the first model's pool
        if tried is not None:
            usage = Usage(max(0, usage.prompt - tried.prompt), max(0, usage.completion - tried.completion))
        call.pool.leave(place, prompt_tokens(call), usage)


def _lines(call: Call) -> bytes:
    entry = call.leg.entry  # type: ignore[union-attr]
    lines = entry.head + call.id.encode() + b"\r\n"
    if call.onward:
        lines += call.onward
    if entry.examine and (call.examined or call.gateway.draw() < entry.pool.quality.share):
        call.examined = True
        lines += entry.examine
    return lines + call.resume if call.resume else lines
