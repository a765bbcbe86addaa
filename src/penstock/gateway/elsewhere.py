"""After step 9 or 10 failed and before the client has any of an answer: another replica, or a pool that the route falls back to."""

from penstock.core.errors import PenstockError, UpstreamFailed
from penstock.core.exchange import Usage
from penstock.gateway.amend import amend
from penstock.gateway.call import Call
from penstock.gateway.decode import envelope_of
from penstock.gateway.dispatch import let_go, release
from penstock.gateway.index import Caller, Leg
from penstock.gateway.settle import reserve, settle, try_reserve
from penstock.gateway.tries import note


async def elsewhere(call: Call, error: PenstockError) -> bool:
    """Whether the request, which failed with `error`, is to be admitted and dispatched once more; then `call` says where.

    - An answer that broke off or was none is asked for again in the same pool, as far as the route's `attempts` and the pool's
      retry budget go.
    - Else the route's next fallback is asked, if the caller may use it: it leads to the same version, or some route does that the
      caller may call. What was reserved is reserved anew at its price. An arm of an experiment does not fall back: its failures
      are what the experiment is to see.

    Raises:
        RateLimited: if the fallback's price does not fit the caller's limits.
    """
    response, route = call.response, call.route
    if route is None:
        return False
    if response is not None and response.status == 200 and isinstance(error, UpstreamFailed):
        response.abort()
        let_go(call, ok=False)
        if call.redone + 1 < route.route.attempts:
            note(call, "failed", error.code)
            call.redone += 1
            call.setback = error
            call.avoid = (*call.avoid, call.replica)
            _forget(call)
            return True
    if not route.fallbacks or call.arm:
        return False
    leg = _next(call)
    if leg is None:
        return False
    note(call, "failed", error.code)
    _turn_to(call, leg)
    if call.reservation is not None:
        settle(call, Usage(), 0)
        if not try_reserve(call):
            await reserve(call)
    return True


def _next(call: Call) -> Leg | None:
    """The first of the route's fallbacks that has not been asked, has a replica, and is the caller's to use."""
    route, caller, current = call.route, call.caller, call.leg
    if route is None or caller is None or current is None:
        return None
    legs = route.fallbacks
    while call.fallen < len(legs):
        leg = legs[call.fallen]
        call.fallen += 1
        if leg.entry is not current.entry and leg.entry.pool.replicas and _may_use(caller, leg, current):
            return leg
    return None


def _may_use(caller: Caller, leg: Leg, instead_of: Leg) -> bool:
    digest = leg.entry.pool.digest
    if caller.models is None or (digest and digest == instead_of.entry.pool.digest):
        return True
    return not caller.models.isdisjoint(leg.entry.routes)


def _turn_to(call: Call, leg: Leg) -> None:
    release(call, Usage(), ok=None)
    pool = leg.entry.pool
    call.leg = leg
    call.pool = call.gateway.pools.get(pool.name)
    call.digest = pool.digest
    call.cascade = None
    call.response = call.kept = call.setback = None
    call.keeps = False  # the key is that of another version
    call.redone = 0
    call.avoid = ()
    call.fallback = True
    _forget(call)
    call.body = call.plain
    call.envelope = envelope_of(call.operation, call.body)
    amend(call, again=True)
    if call.route is not None:
        call.gateway.meters.cell("penstock_fallbacks_total", call.route.route.name, pool.name).value += 1


def _forget(call: Call) -> None:
    """What was noted of an answer that the client gets nothing of."""
    call.response = None
    call.first_ns = call.last_ns = call.chunks = 0
    call.usage, call.usage_event, call.finish, call.engine = None, b"", "", None
    if call.kept is not None:
        call.kept = []
