"""A model that says which of two answers is better, asked in both orders: where it contradicts itself, it is a tie."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from penstock.core.errors import PenstockError
from penstock.core.exchange import Usage
from penstock.core.snapshot import TenantEntry
from penstock.experiments.judge_words import ask_which, both_orders, letter_in
from penstock.gateway.call import Call
from penstock.gateway.decode import envelope_of
from penstock.gateway.index import PoolEntry
from penstock.gateway.pools import PoolState
from penstock.net.client import parse_origin
from penstock.routing.prices import cost_nanousd
from penstock.wire.answer import decode_answer
from penstock.wire.ending import usage_of
from penstock.wire.spoken import texts_of

Verdict = Literal["", "first", "other", "tie"]

_MOST_BYTES = 65536
_VERDICTS: dict[str, Verdict] = {
    "won": "first",
    "lost": "other",
    "same": "tie",
    "contradicted": "tie",
    "unreadable": "",
}
_GUEST = TenantEntry(name="", priority="batch", weight=0.01)
_TOKENS = 64


async def judged(call: Call, pool: str, first: str, other: str) -> Verdict:
    """Which of the two answers to `call` the judge finds better; "" if it was not to be had.

    Args:
        call: the request that both answer.
        pool: of the judge.
        first: the answer that is `first`.
        other: the one that is `other`.
    """
    if first.strip() == other.strip():
        return "tie"
    question = "\n".join(envelope_of(call.operation, call.plain).texts())
    letters = [await _letter(call, pool, question, *pair) for pair in ((first, other), (other, first))]
    return _VERDICTS[both_orders(letters).result]


async def _letter(call: Call, pool: str, question: str, a: str, b: str) -> str:
    """`A`, `B` or `C`, or "" if nothing can be made of the reply."""
    state, entry = call.gateway.pools.get(pool), call.gateway.index.pools.get(pool)
    if state is None or entry is None:
        return ""
    body = msgspec.json.encode(
        {
            "model": entry.pool.model or pool,
            "messages": ask_which(question, a, b),
            "max_tokens": 4,
            "temperature": 0,
        }
    )
    place = state.try_enter(_GUEST, _TOKENS)
    if place is None:
        return ""
    try:
        reply = await _reply(call, state, entry, body)
    finally:
        state.leave(place, _TOKENS, Usage())
    return letter_in(reply)


async def _reply(call: Call, state: PoolState, entry: PoolEntry, body: bytes) -> str:
    """The judge's words; "" if it cannot be asked or does not answer. Its cost is booked with the copies'."""
    gateway = call.gateway
    member = state.balancer.take(time.monotonic(), gateway.draw())
    if member is None:
        return ""
    origin = entry.origins.get(member.replica.id)
    if origin is None or origin.key != member.replica.url:
        origin = parse_origin(member.replica.url)
    lines = b"content-type: application/json\r\nx-penstock-request-id: %b\r\n" % call.id.encode()
    response, ok = None, None
    try:
        response = await gateway.client.request(
            origin, b"POST", b"/v1/chat/completions", (), body, entry.timeouts, lines
        )
        data = await response.read(_MOST_BYTES)
        ok = response.status == 200
        usage = usage_of(decode_answer(data).usage) if ok else None
        if usage is not None and call.shadow is not None:
            cost = gateway.meters.cell("penstock_shadow_cost_usd_total", call.shadow.experiment.name)
            cost.value += cost_nanousd(entry.pool.price, usage) * 1e-9
        return "".join(text for _, field, text in texts_of(data) if field == "content") if ok else ""
    except (PenstockError, ValueError, RecursionError):
        ok = False
        return ""
    finally:
        if response is not None:
            response.abort()
        state.balancer.ended(member, ok, time.monotonic())
