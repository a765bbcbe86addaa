"""What drift is looked for in: of few requests a second it is noticed what their users said, in numbers, and their engines are asked to look too."""

from __future__ import annotations

from penstock.core.exchange import Noticed
from penstock.experiments.drift_text import language_of, words_of
from penstock.gateway.call import Call
from penstock.wire.envelope import ChatEnvelope, CompletionEnvelope, Envelope

_BURST_S = 1.0


def pick(call: Call) -> None:
    """Has this request noticed. Requests come in bursts, so the worker's share of a second may be used up at once."""
    gateway = call.gateway
    gateway.notice_at = max(gateway.notice_at, call.at - _BURST_S) + gateway.notice_gap
    call.noticing = True
    leg = call.leg
    if leg is not None and leg.entry.pool.quality.share:
        call.examined = True


def notice(call: Call) -> Noticed | None:
    """What is noticed of a request that was picked; None where nobody said anything."""
    text = _said(call.envelope)
    if text is None:
        return None
    return Noticed(characters=len(text), language=language_of(text), words=words_of(text))


def _said(envelope: Envelope) -> str | None:
    """The last thing that a user says."""
    if isinstance(envelope, ChatEnvelope):
        for message in reversed(envelope.messages):
            if message.role == "user":
                content = message.content
                if isinstance(content, list):
                    return " ".join(part.text for part in content if part.text is not None)
                return content
    elif isinstance(envelope, CompletionEnvelope) and isinstance(envelope.prompt, str):
        return envelope.prompt
    return None
