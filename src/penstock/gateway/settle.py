"""Steps 7 and 11: what a request may come to use is reserved before, and settled after by what it really used."""

import time

import msgspec

from penstock.access.leases import Holder
from penstock.access.limits import BYTES_PER_TOKEN, estimate_tokens
from penstock.core.exchange import Usage
from penstock.gateway.call import Call
from penstock.gateway.index import Caller, RouteEntry
from penstock.gateway.ports import Limiter
from penstock.routing.prices import cost_nanousd
from penstock.wire.edit import prepend, replaced


def hold(limiter: Limiter, caller: Caller) -> Holder:
    """The accounts of a caller's limits, kept for its next requests."""
    holder = caller.holder = limiter.holder(caller.key, caller.tenant)
    return holder


def bound(call: Call) -> None:
    """Writes the most tokens that are reserved for the answer into a body that names none, where tokens or money are limited.

    What the engine may generate beyond the reservation would slip past the limit as often as requests run at the same time.

    Raises:
        ValueError: if the body cannot be read.
    """
    holder, caller, route = call.holder, call.caller, call.route
    if caller is None or route is None or route.route.max_tokens is not None:  # which is set in any case
        return
    if caller.by_model or route.limited:
        holder = _holder_on(call, caller, route)
    if holder is None or not holder.bounds:
        return
    most = route.route.default_max_tokens
    if b'max_tokens"' in call.body:  # as null, or in what is said
        call.body = replaced(call.body, {"max_tokens": most})
    else:
        call.body = prepend(call.body, b'"max_tokens":%d' % most)
    call.envelope = msgspec.structs.replace(call.envelope, max_tokens=most)


def _holder_on(call: Call, caller: Caller, route: RouteEntry) -> Holder:
    """The same with the limits on the route, where there are any."""
    holder = route.holders.get(caller)
    if holder is None:
        entry = route.route
        holder = call.gateway.limiter.holder_on(caller.key, caller.tenant, entry.name, entry.limits)
        route.holders[caller] = holder
    return holder


def try_reserve(call: Call) -> bool:
    """Holds tokens, money and a seat, if the leases at hand cover them; False: nothing was done, and `reserve` must be awaited."""
    holder, caller, route = call.holder, call.caller, call.route
    if caller is not None and route is not None and (caller.by_model or route.limited):
        holder = call.holder = _holder_on(call, caller, route)
    if holder is None or not holder.reserves:
        return True
    tokens = _most_tokens(call)
    nanousd = _nanousd(call, tokens) if holder.spends else 0
    call.reservation = call.gateway.limiter.try_reserve(holder, tokens, time.monotonic(), nanousd)
    return call.reservation is not None


async def reserve(call: Call) -> None:
    """Holds tokens, money and a seat, asking the ledger.

    Raises:
        RateLimited: if one of them is not there.
        Unavailable: if the ledger is away and the policy says `closed`.
    """
    holder, caller = call.holder, call.caller
    if holder is None or caller is None:
        return
    tokens = _most_tokens(call)
    nanousd = _nanousd(call, tokens) if holder.spends else 0
    down = call.rules.policy.ledger_down if call.rules is not None else caller.down
    call.reservation = await call.gateway.limiter.reserve(holder, tokens, time.monotonic(), nanousd, down)


def _most_tokens(call: Call) -> int:
    envelope = call.envelope
    tokens = estimate_tokens(len(call.request.body), envelope.token_limit, envelope.n or 1) - call.spared
    return tokens if call.cascade is None else 2 * tokens


def _nanousd(call: Call, tokens: int) -> int:
    if call.leg is None:
        return 0
    prompt = prompt_tokens(call)
    if call.cascade is None:
        return cost_nanousd(call.leg.entry.pool.price, Usage(prompt, tokens - prompt))
    usage = Usage(prompt, tokens // 2 - prompt)
    legs = (call.cascade.first, call.cascade.then)
    return sum(cost_nanousd(leg.entry.pool.price, usage) for leg in legs)


def used(call: Call) -> Usage:
    """The usage as the engine told it; else what the client got of it, counted by chunks: partial answers are billed as partial.

    Where a cascade's second model answered, that of the first is in it.
    """
    if call.usage is not None:
        usage = call.usage
    elif not call.dispatched_ns or (not call.chunks and call.outcome != "cancelled"):
        usage = Usage()
    else:
        usage = Usage(prompt_tokens(call), call.chunks)
    tried = call.tried
    if tried is None:
        return usage
    return Usage(usage.prompt + tried.prompt, usage.completion + tried.completion, usage.cached + tried.cached)


def prompt_tokens(call: Call) -> int:
    """The input of the request, estimated from its size."""
    return -(-len(call.request.body) // BYTES_PER_TOKEN) - call.spared


def settle(call: Call, usage: Usage, nanousd: int) -> None:
    """Gives back what was reserved and not used."""
    reservation = call.reservation
    if reservation is not None:
        call.reservation = None
        call.gateway.limiter.settle(reservation, usage.prompt + usage.completion, time.monotonic(), nanousd)


def cost(call: Call, usage: Usage) -> int:
    """What the usage costs, in nano-dollars; answers from the cache cost nothing."""
    if call.leg is None or call.recalled is not None:
        return 0
    tried = call.tried
    if tried is not None:
        own = Usage(usage.prompt - tried.prompt, usage.completion - tried.completion)
        return call.spent + cost_nanousd(call.leg.entry.pool.price, own)
    return cost_nanousd(call.leg.entry.pool.price, usage)
