"""Step 9: to the better of two replicas; on to another one only as long as no byte of an answer has come."""

import time

from penstock.core.errors import PenstockError, Unavailable, UpstreamFailed
from penstock.core.exchange import Usage
from penstock.gateway.call import Call
from penstock.gateway.settle import prompt_tokens
from penstock.net.client import Response, parse_origin

MAX_ATTEMPTS = 3
_ELSEWHERE = frozenset({429, 500, 502, 503})  # answers that another replica may better


async def dispatch(call: Call) -> Response:
    """The head of a replica's answer. What it began is ended by `release`.

    Raises:
        UpstreamFailed: if every replica that was tried failed.
        UpstreamTimeout: if the replica did not answer in time: it may be at work, so no other one is asked.
        Unavailable: if no replica takes requests.
    """
    gateway, leg, state = call.gateway, call.leg, call.pool
    if leg is None or state is None:
        raise Unavailable("The request leads to no pool.")
    entry = leg.entry
    balancer = state.balancer
    failed: list[str] = list(call.avoid)
    refusal: Response | None = None  # kept until another replica has done better
    last: PenstockError | None = None
    while call.attempts < MAX_ATTEMPTS:
        replica = balancer.pick(time.monotonic(), gateway.draw(), failed)
        if replica is None:
            break
        origin = entry.origins.get(replica.id)
        if origin is None or origin.key != replica.url:  # the Snapshot has changed since this request began
            origin = parse_origin(replica.url)
        call.attempts += 1
        call.replica = replica.id
        balancer.began(replica.id)
        call.holding = True
        call.dispatched_ns = time.monotonic_ns() - call.started_ns
        try:
            response = await gateway.client.request(
                origin, b"POST", call.path, (), call.body, entry.timeouts, _lines(call)
            )
        except UpstreamFailed as error:
            let_go(call, ok=False)
            failed.append(replica.id)
            last = error
            continue
        except PenstockError:
            let_go(call, ok=False)
            raise
        if refusal is not None:
            refusal.abort()
            refusal = None
        call.response = response
        if response.status not in _ELSEWHERE:
            return response
        let_go(call, ok=None if response.status == 429 else False)
        failed.append(replica.id)
        refusal = response
    if refusal is not None:
        return refusal
    if last is not None:
        raise last
    raise Unavailable(
        f"No replica of the pool {entry.pool.name!r} takes requests now.", code="no_replica", retry_after=1
    )


def let_go(call: Call, *, ok: bool | None) -> None:
    """The replica that was asked has done its part, or not: `ok` as for `Balancer.ended`."""
    if call.holding and call.pool is not None:
        call.holding = False
        call.pool.balancer.ended(call.replica, ok, time.monotonic())


def release(call: Call, usage: Usage, *, ok: bool | None) -> None:
    """Ends what `dispatch` and `admit` began; `ok` as for `Balancer.ended`. An answer that is not complete is given up."""
    if call.response is not None:
        call.response.abort()
    let_go(call, ok=ok)
    place = call.place
    if place is not None and call.pool is not None:
        call.place = None
        call.pool.leave(place, prompt_tokens(call), usage)


def _lines(call: Call) -> bytes:
    lines = b"content-type: application/json\r\nx-penstock-request-id: %b\r\n" % call.id.encode()
    if call.trace:
        lines += b"traceparent: %b\r\n" % call.trace.encode()
    return lines + call.resume if call.resume else lines
