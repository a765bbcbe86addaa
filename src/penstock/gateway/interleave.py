"""Step 9 of an interleaved request: the control and a treatment both answer, and the user gets one reply of both.

Two choices that stream are `interleave_stream`'s.

If the treatment does not answer in time, or the two cannot be drafted from, the control's answer is given alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core.errors import Unavailable, UpstreamFailed, UpstreamTimeout
from penstock.core.exchange import Pair, Usage
from penstock.experiments.interleave import drafted
from penstock.gateway.beside import Beside, Given, ask, count, second_of, text_in, told
from penstock.gateway.call import Call
from penstock.gateway.cascade import Draft, draft, escalate
from penstock.gateway.dispatch import dispatch
from penstock.gateway.ports import Answer
from penstock.gateway.relay import MAX_ANSWER_BYTES
from penstock.gateway.screen import merged
from penstock.gateway.settle import prompt_tokens
from penstock.net.client import Response
from penstock.wire.edit import replaced
from penstock.wire.spoken import texts_of


class _Choices(msgspec.Struct, frozen=True):
    choices: list[dict[str, Any]]


_decode = msgspec.json.Decoder(_Choices).decode
Shown = tuple[bytes, tuple[str, ...]]  # the reply's body, and whose each of its choices or parts is
Show = Callable[[bytes, Given, tuple[str, str], Callable[[], float]], Shown | None]


async def interleaved(call: Call, beside: Beside) -> Answer:
    """The reply of both arms, or of the control alone. The call is admitted to the control's pool.

    Raises:
        PenstockError: as `dispatch`, of the control.
    """
    second = second_of(call, beside)
    if second is None:
        count(call, "interleave", beside.experiment.name, "single_busy")
        return await first_of(call)
    other = asyncio.create_task(ask(second, call, joined=True))
    try:
        response = await first_of(call)
        body = await response.read(MAX_ANSWER_BYTES)
        if response.status != 200:
            count(call, "interleave", beside.experiment.name, "skipped_failed")
            return Whole(response, body)
        plan = beside.experiment.interleave
        await asyncio.wait((other,), timeout=plan.patience_s if plan is not None else 0)
        given = other.result() if other.done() else None
    finally:
        if not other.done():
            other.cancel()
    show = _draft if plan is not None and plan.show == "draft" else _both
    return Whole(response, joined(call, beside, second, given, body, show))


async def first_of(call: Call) -> Response | Draft:
    """The control's answer: of its cascade, if it has one, or of its pool.

    Raises:
        PenstockError: as `dispatch`, and as the pool's `enter`.
    """
    cascade = call.cascade
    if cascade is None:
        return await dispatch(call)
    try:
        return await draft(call, cascade)
    except (UpstreamFailed, UpstreamTimeout, Unavailable) as error:
        state, caller = (call.pool, call.caller) if escalate(call, error) else (None, None)
        if state is None or caller is None:
            raise
    state, tokens = call.pool, prompt_tokens(call)
    if state is not None:
        call.place = state.try_enter(caller.tenant, tokens) or await state.enter(caller.tenant, tokens)
    return await dispatch(call)


def alone(call: Call, beside: Beside, second: Call, given: Given | None) -> None:
    """The user gets the control's answer alone: the other one failed, or, if it is None, was too late for the user."""
    if given is None:
        second.outcome = "error"  # who is too late has failed
        call.epoch = beside.epoch
        call.pair = told(second, beside.leg.name, Usage(), 0)
    else:
        paid(call, beside, given)
    count(call, "interleave", beside.experiment.name, "single_late" if given is None else "single_failed")


def paid(call: Call, beside: Beside, given: Given) -> Pair:
    """Notes what the other arm did, found and cost: the call's `pair`, nothing having been shown."""
    second = given.call
    call.epoch = beside.epoch
    call.pair = pair = told(second, beside.leg.name, given.usage, given.cost_nanousd)
    if second.findings:
        call.findings = merged(call.findings, second.findings)
    cost = call.gateway.meters.cell("penstock_interleave_cost_usd_total", beside.experiment.name)
    cost.value += given.cost_nanousd * 1e-9
    return pair


def joined(call: Call, beside: Beside, second: Call, given: Given | None, body: bytes, show: Show) -> bytes:
    """The reply's body, as `show` puts it together; the call's `pair` tells what the second arm did, and whose each choice is."""
    name = beside.experiment.name
    if given is None or given.call.outcome != "ok":
        alone(call, beside, second, given)
        return body
    pair = paid(call, beside, given)
    try:
        found = show(body, given, (call.arm, beside.leg.name), call.gateway.draw)
    except (ValueError, LookupError):
        found = None
    if found is None:
        count(call, "interleave", name, "single_apart")
        return body
    reply, shown = found
    call.pair = msgspec.structs.replace(pair, shown=shown)
    plan = beside.experiment.interleave
    call.notes += b"x-penstock-interleaved: %b; n=%d\r\n" % (
        plan.show.encode() if plan is not None else b"",
        len(shown),
    )
    count(call, "interleave", name, "shown")
    return reply


def _both(body: bytes, given: Given, arms: tuple[str, str], draw: Callable[[], float]) -> Shown | None:
    """Two choices in random order: nothing in them tells whose they are."""
    choices = [_decode(body).choices[0], _decode(given.body).choices[0]]
    order = (0, 1) if draw() < 0.5 else (1, 0)
    shown = [choices[at] | {"index": index} for index, at in enumerate(order)]
    return replaced(body, {"choices": shown}), tuple(arms[at] for at in order)


def _draft(body: bytes, given: Given, arms: tuple[str, str], draw: Callable[[], float]) -> Shown | None:
    """One choice, drafted from both."""
    choices = _decode(body).choices
    if choices[0]["message"].get("tool_calls"):
        return None
    first, other = text_in(texts_of(body)), given.text
    found = drafted(first, other, draw)
    if found is None:
        return None
    choice = choices[0] | {"message": choices[0]["message"] | {"content": found.text}}
    return replaced(body, {"choices": [choice]}), tuple(arms[team] for team in found.teams)


class Whole:
    """An answer that has been read."""

    def __init__(self, response: Response | Draft, body: bytes) -> None:
        self._response = response
        self._body = body
        self.status = response.status

    def header(self, name: bytes) -> bytes | None:
        """See `Response.header`."""
        return self._response.header(name)

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """See `Response.read`."""
        return self._body

    async def flow(self, sink: Callable[[bytes, bytes], bool]) -> bool:
        """See `Response.flow`."""
        sink(self._body, b"")
        return True

    def leave(self) -> None:
        """See `Response.leave`."""
        self._response.leave()

    def abort(self) -> None:
        """See `Response.abort`."""
        self._response.abort()
