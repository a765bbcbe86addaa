"""A second arm beside the one that answers: who gets one, and how it is asked.

The second answer is a guest: it takes a free place or none, is charged to nobody's limits, and nothing that becomes of it reaches the user's
request.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec

from penstock.core.errors import PenstockError, Unavailable, UpstreamFailed, UpstreamTimeout
from penstock.core.exchange import Exchange, Outcome, Pair, Usage
from penstock.core.snapshot import ExperimentEntry, TenantEntry
from penstock.experiments.assignment import Assignment
from penstock.gateway.amend import amend
from penstock.gateway.call import Call
from penstock.gateway.capture import seal_all
from penstock.gateway.cascade import Draft, draft, escalate
from penstock.gateway.choose import arm_leg
from penstock.gateway.decode import envelope_of
from penstock.gateway.dispatch import dispatch, release
from penstock.gateway.guarded import GuardedAnswer
from penstock.gateway.index import Leg, RouteEntry, Rules
from penstock.gateway.record import exchange_of
from penstock.gateway.relay import MAX_ANSWER_BYTES
from penstock.gateway.screen import merged, screen
from penstock.gateway.settle import cost, prompt_tokens, used
from penstock.gateway.upstream import refusal
from penstock.net.client import Response
from penstock.wire.answer import decode_answer
from penstock.wire.ending import finish_of, usage_of
from penstock.wire.spoken import texts_of, texts_of_events
from penstock.wire.sse import event_data, split_events

_GUEST = TenantEntry(name="", priority="batch", weight=0.01)


class Beside(NamedTuple):
    """Which arm answers too, of which experiment and epoch."""

    experiment: ExperimentEntry
    leg: Leg
    epoch: int


class Given(NamedTuple):
    """A second answer, or why there is none."""

    call: Call  # as the engine was asked
    body: bytes
    text: str
    usage: Usage
    cost_nanousd: int


def pair_up(call: Call, entry: RouteEntry, assignment: Assignment) -> Leg:
    """The incumbent's leg, which answers everybody; and, for the planned share of requests, who answers beside it."""
    assert entry.assigner is not None
    experiment = entry.assigner.entry
    leg = entry.arms[experiment.incumbent]
    call.arm, call.propensity, call.epoch = leg.name, 1.0, 0
    if assignment.epoch == 0 or assignment.arm.name == experiment.incumbent:
        return leg
    shadow, interleave = experiment.shadow, experiment.interleave
    share = shadow.share if shadow is not None else interleave.share if interleave is not None else 0.0
    if share <= 0 or call.gateway.draw() >= share:
        return leg
    kind = "shadow" if shadow is not None else "interleave"
    why = _unfit(call, interleaved=interleave is not None)
    if why:
        count(call, kind, experiment.name, why)
        return leg
    found = Beside(experiment, entry.arms[assignment.arm.name], assignment.epoch)
    if shadow is not None:
        call.shadow = found
        call.kept = []
    else:
        call.beside = found
    return leg


def _unfit(call: Call, *, interleaved: bool) -> str:
    """Why the request gets no second answer, or ""."""
    if call.operation not in {"chat", "completions"}:
        return "skipped_operation"
    if call.envelope.offers_tools:
        return "skipped_tools"
    if (call.envelope.n or 1) > 1:
        return "skipped_choices"
    return "skipped_operation" if interleaved and call.operation != "chat" else ""


def count(call: Call, kind: str, experiment: str, result: str) -> None:
    """Counts what became of a second answer."""
    call.gateway.meters.cell(f"penstock_{kind}_total", experiment, result).value += 1


def second_of(call: Call, beside: Beside) -> Call | None:
    """The same request to the other arm, admitted to its pool; None if no place is free there."""
    leg = beside.leg
    state = call.gateway.pools.get(leg.entry.pool.name)
    if state is None:
        return None
    now = time.time()
    body = call.plain  # not the client's own words: what content rules took out is nobody's to see
    if not body:
        return None
    second = Call(call.gateway, call.request, call.reply, call.operation, call.path, now)
    second.index = call.index
    second.started_ns = time.monotonic_ns()
    second.body = body
    second.envelope = envelope_of(call.operation, body)
    second.stream = call.stream
    second.caller, second.route = call.caller, call.route
    second.arm, second.epoch = leg.name, beside.epoch
    if leg.cascade is not None:
        leg = arm_leg(second, leg)
        state = call.gateway.pools.get(leg.entry.pool.name)
        if state is None:
            return None
    second.leg, second.pool, second.digest = leg, state, leg.entry.pool.digest
    second.rules = _rules_of(call, leg)
    second.captured = call.captured and second.rules is call.rules
    second.unit, second.user, second.session = call.unit, call.user, call.session
    second.trimmed, second.spared = call.trimmed, call.spared  # counted already
    second.place = state.try_enter(_GUEST, prompt_tokens(second))
    return second if second.place is not None else None


def _rules_of(call: Call, leg: Leg) -> Rules | None:
    """The content rules of the other arm: its own, the route's, or the tenant's."""
    if leg.rules is not None or call.caller is None:
        return leg.rules
    return call.index.rules_for(call.caller.tenant.policy)


async def ask(second: Call, call: Call, *, joined: bool = False) -> Given:
    """Asks, and reads the whole answer. What goes wrong is told in the second call's outcome; only being cancelled is raised.

    The other arm's own content rules see what it is asked, after those of `call`, and what it answers. Rules that both arms share have
    seen what is asked already; and with `joined`, where both answers become one reply, they see that.
    """
    body, text, usage = b"", "", Usage()
    own = has_own_rules(second, call)
    ok: bool | None = None  # being cancelled says nothing of the replica
    try:
        body = await _answer(second, own=own)
        second.status = 200
        text, usage = _read(second, body)
        ok = True
        if own or not joined:
            body = _screened(second, body)
            text = _text(second, body)
    except PenstockError as error:
        ok = failed(second, error)
    finally:
        give_back(second, usage, ok=ok)
    return given_of(second, body, text, usage)


def has_own_rules(second: Call, call: Call) -> bool:
    """Whether other content rules hold for the second answer than for the reply that it becomes part of."""
    return second.rules is not None and second.rules is not call.rules


def failed(second: Call, error: PenstockError) -> bool:
    """Notes why there is no second answer; whether the replica has done its part all the same."""
    second.status, second.error = error.status, error.code
    second.outcome = "refused" if error.status < 500 else "error"
    return not isinstance(error, UpstreamFailed | UpstreamTimeout | Unavailable)


def give_back(second: Call, usage: Usage, *, ok: bool | None) -> None:
    """Gives back what the second call took; `ok` as for `dispatch.release`."""
    second.last_ns = time.monotonic_ns() - second.started_ns
    release(second, usage, ok=ok)
    second.response = second.setback = second.draft = None


def given_of(second: Call, body: bytes, text: str, usage: Usage) -> Given:
    """The second answer with what it cost; `usage` as the engine told it."""
    second.usage = usage
    usage = used(second)
    return Given(second, body, text, usage, cost(second, usage))


def _screen(second: Call) -> None:
    rules = second.rules
    if rules is not None and rules.fault:
        raise Unavailable(f"The policy {rules.policy.name!r} cannot be used.", code="policy_unusable")
    screen(second)


async def opened(second: Call, *, own: bool) -> Response | Draft:
    """Asks; the answer that begins, of the first model of its cascade or of its own pool. `own`: content rules of its own see what is asked.

    Raises:
        PenstockError: as `dispatch`, and if the answer is a refusal; Unavailable if the cascade's second model has no free place.
    """
    if own:
        _screen(second)
    amend(second, again=True)
    cascade = second.cascade
    if cascade is not None:
        try:
            found = await draft(second, cascade)
        except (UpstreamFailed, UpstreamTimeout, Unavailable) as error:
            if not escalate(second, error) or second.pool is None:
                raise
            second.place = second.pool.try_enter(_GUEST, prompt_tokens(second))
            if second.place is None:
                raise Unavailable("The pool has no free place for a guest.", code="no_replica") from None
        else:
            second.first_ns = time.monotonic_ns() - second.started_ns
            return found
    response = await dispatch(second)
    await response.begun()
    second.first_ns = time.monotonic_ns() - second.started_ns
    if response.status != 200:
        raise refusal(response, await response.read(MAX_ANSWER_BYTES))
    return response


async def _answer(second: Call, *, own: bool) -> bytes:
    """The body of its answer.

    Raises:
        PenstockError: as `opened`.
    """
    found = await opened(second, own=own)
    return await all_of(found) if second.stream else await found.read(MAX_ANSWER_BYTES)


async def all_of(found: Response | Draft) -> bytes:
    """All of a stream, whose beginning may have been read already.

    Raises:
        UpstreamFailed: if it breaks off, or is too long.
        UpstreamTimeout: if it stalls.
    """
    parts: list[bytes] = []
    left = MAX_ANSWER_BYTES

    def take(piece: bytes, _framed: bytes) -> bool:
        nonlocal left
        parts.append(piece)
        left -= len(piece)
        return left >= 0

    while not await found.flow(take):
        if left < 0:
            raise UpstreamFailed(f"The answer is longer than {MAX_ANSWER_BYTES} bytes.")
    return b"".join(parts)


def _screened(second: Call, body: bytes) -> bytes:
    """The answer as the other arm's content rules let it pass."""
    rules = second.rules
    if rules is None or not rules.screens_output or rules.guard is None:
        return body
    guarded = GuardedAnswer(rules.guard)
    if second.stream:
        payloads = [event_data(event) for event in split_events(body)]
        shown = [guarded.event(one) for one in payloads if one and one != b"[DONE]" and not guarded.blocked]
        body = b"".join([*shown, b"data: [DONE]\n\n"])
    else:
        body = guarded.whole(body)
    second.findings = merged(second.findings, guarded.findings)
    if guarded.blocked:
        second.finish = "content_filter"
    return body


def _text(second: Call, body: bytes) -> str:
    return text_in(texts_of_events([body]) if second.stream else texts_of(body))


def _read(second: Call, body: bytes) -> tuple[str, Usage]:
    """Text and usage of an answer."""
    try:
        if not second.stream:
            answer = decode_answer(body)
            if answer.failed or not answer.choices:
                raise UpstreamFailed("The engine's answer holds no choices.", code="upstream_garbage")
            second.finish, usage = finish_of(answer.choices), usage_of(answer.usage)
            second.chunks = 1
            return _text(second, body), usage or Usage()
        usage = None
        ended = False
        for event in split_events(body):
            payload = event_data(event)
            ended = ended or payload == b"[DONE]"
            if not payload or payload == b"[DONE]":
                continue
            answer = decode_answer(payload)
            if answer.failed:
                raise UpstreamFailed("The engine broke off with an error.", code="upstream_error")
            usage = usage_of(answer.usage) or usage
            second.finish = finish_of(answer.choices) or second.finish
            second.chunks += bool(answer.choices)
    except (ValueError, RecursionError):
        raise UpstreamFailed("The engine answered with what is no JSON.", code="upstream_garbage") from None
    if not ended:
        raise UpstreamFailed("The engine ended its stream before it was complete.", code="upstream_truncated")
    return _text(second, body), usage or Usage(0, second.chunks)


def text_in(texts: list[tuple[int, str, str]]) -> str:
    """What the first choice says."""
    return "".join(text for index, field, text in texts if index == 0 and field in {"content", "text"})


def told(call: Call, arm: str, usage: Usage, cost: int) -> Pair:
    """`call` as the other answer of a pair."""
    outcome: Outcome = call.outcome
    return Pair(
        arm=arm,
        digest=call.digest,
        outcome=outcome,
        finish=call.finish,
        latency_ns=call.last_ns,
        first_ns=call.first_ns if call.stream else 0,
        usage=usage,
        cost_nanousd=cost,
    )


def exchange_of_second(given: Given, pair: Pair) -> Exchange:
    """The record of a second answer that no user has seen, with its content if that of the user's is kept."""
    if given.call.captured and given.call.status == 200:
        given.call.tail = given.body
        given.call.kept = [given.body]
        seal_all([given.call])
    return msgspec.structs.replace(exchange_of(given.call, given.usage, given.cost_nanousd), pair=pair)
