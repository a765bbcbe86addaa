"""Step 10, of whole answers: JSON through, read only where limits, cost and rules need it."""

import time

from penstock.core.errors import UpstreamFailed
from penstock.gateway.call import Call
from penstock.gateway.guarded import GuardedAnswer
from penstock.gateway.ports import Answer
from penstock.gateway.screen import merged
from penstock.gateway.upstream import refusal
from penstock.wire.answer import decode_answer
from penstock.wire.ending import finish_of, usage_of
from penstock.wire.phases import HEADER as PHASES
from penstock.wire.phases import phases_of
from penstock.wire.quality import HEADER, quality_of

MAX_ANSWER_BYTES = 67108864


async def relay(call: Call, response: Answer) -> None:
    """Reads the answer to its end; its bytes become the reply's.

    Raises:
        BadRequest: if the engine found fault with the request.
        UpstreamFailed: if the answer breaks off or is none.
        UpstreamTimeout: if it stalls.
    """
    body = await response.read(MAX_ANSWER_BYTES)
    now = time.monotonic_ns() - call.started_ns
    call.first_ns = call.last_ns = now
    if response.status != 200:
        raise refusal(response, body)
    try:
        answer = decode_answer(body)
    except (ValueError, RecursionError):
        raise UpstreamFailed("The engine answered with what is no JSON.", code="upstream_garbage") from None
    if answer.failed or not (answer.choices or (answer.data and call.operation == "embeddings")):
        raise UpstreamFailed("The engine's answer holds no choices.", code="upstream_garbage")
    call.usage = usage_of(answer.usage)
    call.finish = finish_of(answer.choices)
    call.chunks = 1
    if call.examined:
        call.quality = quality_of(response.header(HEADER))
    leg = call.leg
    if leg is not None and leg.entry.tells:
        call.engine = phases_of(response.header(PHASES))
    rules = call.rules
    if rules is not None and rules.screens_output and rules.guard is not None and answer.choices:
        guarded = GuardedAnswer(rules.guard)
        body = guarded.whole(body)
        call.findings = merged(call.findings, guarded.findings)
        if guarded.blocked:
            call.finish = "content_filter"
    if call.kept is not None:
        call.kept.append(body)
    call.status = 200
    call.tail = body
