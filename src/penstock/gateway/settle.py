"""Steps 7 and 11: what a request may come to use is reserved before, and settled after by what it really used."""

import time

from penstock.access.limits import BYTES_PER_TOKEN, estimate_tokens
from penstock.core.exchange import Usage
from penstock.gateway.call import Call
from penstock.routing.prices import cost_nanousd


async def reserve(call: Call) -> None:
    """Holds tokens, money and a seat.

    Raises:
        RateLimited: if one of them is not there.
    """
    caller, leg = call.caller, call.leg
    if caller is None or leg is None:
        return
    envelope = call.envelope
    size = len(call.request.body)
    tokens = estimate_tokens(size, envelope.token_limit, envelope.n or 1)
    nanousd = 0
    if caller.spends:
        prompt = prompt_tokens(call)
        nanousd = cost_nanousd(leg.entry.pool.price, Usage(prompt, tokens - prompt))
    call.reservation = await call.gateway.limiter.reserve(caller.key, caller.tenant, tokens, time.monotonic(), nanousd)


def used(call: Call) -> Usage:
    """The usage as the engine told it; else what the client got of it, counted by chunks: partial answers are billed as partial."""
    if call.usage is not None:
        return call.usage
    if not call.dispatched_ns or (not call.chunks and call.outcome != "cancelled"):
        return Usage()
    return Usage(prompt_tokens(call), call.chunks)


def prompt_tokens(call: Call) -> int:
    """The input of the request, estimated from its size."""
    return -(-len(call.request.body) // BYTES_PER_TOKEN)


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
    return cost_nanousd(call.leg.entry.pool.price, usage)
