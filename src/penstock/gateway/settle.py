"""Step 11: what was really used."""

import time

from penstock.core.exchange import Usage
from penstock.gateway.call import Call

DEFAULT_COMPLETION_TOKENS = 256  # reserved for each choice of a request that sets no limit
BYTES_PER_TOKEN = 4  # of a prompt that no tokenizer has seen


def wanted_tokens(call: Call) -> int:
    """How many tokens the request may come to use: its prompt by length, and its choices at their limit."""
    envelope = call.envelope
    limit = envelope.token_limit
    call.estimate = len(call.request.body) // BYTES_PER_TOKEN + 1
    return call.estimate + (limit if limit is not None else DEFAULT_COMPLETION_TOKENS) * (envelope.n or 1)


def used(call: Call) -> Usage:
    """The usage as the engine told it; else what the client got of it, counted by chunks: partial answers are billed as partial."""
    if call.usage is not None:
        return call.usage
    if not call.dispatched_ns or call.recalled is not None or (call.outcome == "refused" and not call.first_ns):
        return Usage()
    if not call.chunks and call.outcome != "cancelled":
        return Usage()
    return Usage(call.estimate, call.chunks)


def settle(call: Call, usage: Usage) -> None:
    """Gives back what was reserved and not used."""
    reservation = call.reservation
    if reservation is not None:
        call.reservation = None
        call.gateway.limiter.settle(reservation, usage.prompt + usage.completion, time.monotonic())
