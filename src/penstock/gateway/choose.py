"""In step 4: where a route's rules, or its cascade, send a request."""

from penstock.access.limits import BYTES_PER_TOKEN
from penstock.gateway.call import Call
from penstock.gateway.index import CascadeEntry, Leg, RouteEntry
from penstock.routing.choose import Asked
from penstock.wire.envelope import ChatEnvelope


def chosen_leg(call: Call, entry: RouteEntry) -> Leg | None:
    """The leg that the first rule that fits names; None if none does, or the route has no rules."""
    if entry.chooser is None:
        return None
    pool = entry.chooser.choose(_asked(call))
    return None if pool is None else entry.chosen[pool]


def cascade_leg(call: Call, cascade: CascadeEntry) -> Leg | None:
    """The leg that is asked first, or at once for the control share; None if this request is none for a cascade."""
    if call.operation == "embeddings" or (not cascade.policy.tools and call.envelope.offers_tools):
        return None
    share = cascade.policy.control_share
    if share and call.gateway.draw() < share:
        call.propensity = share
        name = call.route.route.name if call.route is not None else ""
        call.gateway.meters.cell("penstock_cascade_total", name, "control").value += 1
        return cascade.then
    call.propensity = 1.0 - share
    call.cascade = cascade
    return cascade.first


def arm_leg(call: Call, leg: Leg) -> Leg:
    """The leg of an arm that is asked first: of its cascade, if it has one and this request is one for it."""
    cascade = leg.cascade
    if cascade is None or call.operation == "embeddings":
        return leg
    if not cascade.policy.tools and call.envelope.offers_tools:
        return leg
    call.cascade = cascade
    return cascade.first


def _asked(call: Call) -> Asked:
    envelope = call.envelope
    messages = envelope.messages if isinstance(envelope, ChatEnvelope) else []
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in envelope.texts())
    return Asked(
        prompt_tokens=-(-size // BYTES_PER_TOKEN),
        answer_tokens=envelope.token_limit,
        messages=len(messages),
        tools=call.envelope.offers_tools,
        stream=call.stream,
        tenant=call.caller.tenant.name if call.caller is not None else "",
        headers=call.request.headers,
        metadata=envelope.metadata or {},
        last_user=_last_user(envelope) if isinstance(envelope, ChatEnvelope) else "\n".join(envelope.texts()),
    )


def _last_user(envelope: ChatEnvelope) -> str:
    for message in reversed(envelope.messages):
        if message.role == "user":
            content = message.content
            if isinstance(content, str):
                return content
            return "\n".join(part.text for part in content or () if part.text is not None)
    return ""
