"""Step 6: has the same tenant asked the same before?"""

from penstock.gateway.cache import cache_key, cacheable
from penstock.gateway.call import Call


def recall(call: Call) -> bool:
    """Looks the question up where the route says so; whether the answer is at hand, in `call.recalled`."""
    route, leg, caller = call.route, call.leg, call.caller
    if route is None or leg is None or caller is None or route.cache is None:
        return False
    if not cacheable(route.cache, call.envelope):
        return False
    pool = leg.entry.pool
    source = pool.build or pool.digest or f"pool:{pool.name}"
    call.cache_key = cache_key(
        tenant=caller.tenant.name,
        source=source if call.cascade is None else f"{source} {call.cascade.mark}",
        policy=call.rules.mark if call.rules is not None else "",
        operation=call.operation,
        stream=call.stream,
        body=call.body,
    )
    entry = call.gateway.cache.get(call.cache_key, call.at)
    if entry is None:
        call.cache = "miss"
        call.kept = []
        return False
    call.cache = "hit"
    call.recalled = entry
    if entry.escalated and call.cascade is not None:
        call.leg = call.cascade.then
        call.digest = call.leg.entry.pool.digest
    return True
