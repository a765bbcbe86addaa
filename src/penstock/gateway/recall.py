"""Step 6: has the same tenant asked the same before?"""

from penstock.core.snapshot import CachePolicy
from penstock.gateway.cache import cache_key, cache_names, cacheable
from penstock.gateway.call import Call
from penstock.gateway.entry import Entry

_MOST_NAMES = 4096


def recall(call: Call) -> bool:
    """Looks the question up where the route says so; whether the answer is at hand, in `call.recalled`.

    The client's `cache-control` counts: `no-cache` asks anew and keeps the answer, `no-store` keeps nothing either.
    """
    route = call.route
    if route is None or route.cache is None or call.beside is not None or not repeatable(call, route.cache):
        return False
    control = call.request.headers.get(b"cache-control")
    directives = directives_of(control) if control is not None else ()
    if b"no-store" in directives:
        return False
    call.cache_key = question_key(call)
    entry = call.gateway.cache.get(call.cache_key, call.at) if b"no-cache" not in directives else None
    if entry is None:
        call.cache = "miss"
        call.kept = []
        call.keeps = True
        call.seeking = b"no-cache" not in directives and (
            route.semantic is not None or (call.gateway.shared is not None and route.cache.shared)
        )
        return False
    call.cache = "hit"
    take(call, entry)
    return True


def source_of(call: Call) -> str:
    """What stands for the weights that answer."""
    pool = call.leg.entry.pool if call.leg is not None else None
    source = "" if pool is None else pool.build or pool.digest or f"pool:{pool.name}"
    return source if call.cascade is None else f"{source} {call.cascade.mark}"


def take(call: Call, entry: Entry) -> None:
    """Answers with `entry`."""
    call.recalled, call.kept, call.keeps = entry, None, False
    if entry.escalated and call.cascade is not None:
        call.leg = call.cascade.then
        call.digest = call.leg.entry.pool.digest


def repeatable(call: Call, policy: CachePolicy) -> bool:
    """Whether an answer to the request may be given again, by what the route's policy says of sampling and of tools."""
    return cacheable(policy, call.envelope) and (policy.tools or not call.envelope.offers_tools)


def question_key(call: Call) -> bytes:
    """What equal questions of one tenant, answered by the same weights under the same rules, have in common."""
    leg = call.leg
    rules, mark = call.rules, call.cascade.mark if call.cascade is not None else ""
    about = (
        call.caller.tenant.name if call.caller is not None else "",
        rules.mark if rules is not None else "",
        call.operation,
        call.stream,
        mark,
    )
    names = leg.names.get(about) if leg is not None else None
    if names is None:
        tenant, policy, operation, stream, _ = about
        names = cache_names(tenant=tenant, source=source_of(call), policy=policy, operation=operation, stream=stream)
        if leg is not None:
            if len(leg.names) >= _MOST_NAMES:
                leg.names.clear()
            leg.names[about] = names
    return cache_key(names, call.body)


def directives_of(control: bytes) -> frozenset[bytes]:
    """The directives of a `cache-control` field without their arguments, in lower case (RFC 9111, section 5.2)."""
    return frozenset(part.partition(b"=")[0].strip().lower() for part in control.split(b","))
