"""In amend: what a route makes smaller of a request: a long chat's oldest turns, and the answer's limit."""

from typing import Any

import msgspec

from penstock.access.limits import BYTES_PER_TOKEN
from penstock.core.snapshot import Trim
from penstock.gateway.call import Call
from penstock.routing.trim import Said, trim

_LIMITS = ("max_tokens", "max_completion_tokens")


class _Chat(msgspec.Struct, frozen=True):
    messages: list[msgspec.Raw]


class _Role(msgspec.Struct, frozen=True):
    role: str


_messages = msgspec.json.Decoder(_Chat).decode
_role = msgspec.json.Decoder(_Role).decode


def shape(call: Call) -> dict[str, Any]:
    """The members of the body to change for the route's `trim` and `max_tokens`.

    Raises:
        ValueError: if the body cannot be read.
    """
    changes: dict[str, Any] = {}
    if call.route is not None:
        route = call.route.route
        if route.trim is not None and call.operation in {"chat", "responses"}:
            _trim(call, route.trim, changes)
        if route.max_tokens is not None and call.operation != "embeddings":
            _clamp(call, route.max_tokens, changes)
    return changes


def _trim(call: Call, policy: Trim, changes: dict[str, Any]) -> None:
    if len(call.body) <= policy.budget_tokens * BYTES_PER_TOKEN:
        return
    messages = _messages(call.body).messages
    left = trim([Said(_role(raw).role, -(-len(bytes(raw)) // BYTES_PER_TOKEN)) for raw in messages], policy)
    if not left.turns:
        return
    changes["messages"] = [messages[at] for at in left.kept]
    if call.trimmed:  # counted already: the body is amended anew, for another pool
        return
    kept = set(left.kept)
    dropped = sum(len(bytes(raw)) for at, raw in enumerate(messages) if at not in kept)
    call.trimmed, call.spared = left.turns, dropped // BYTES_PER_TOKEN
    call.notes += b"x-penstock-trimmed: %d\r\n" % left.turns
    name = call.route.route.name if call.route is not None else ""
    call.gateway.meters.cell("penstock_trimmed_tokens_total", name).value += left.tokens


def _clamp(call: Call, most: int, changes: dict[str, Any]) -> None:
    envelope = call.envelope
    limits = {name: getattr(envelope, name) for name in _LIMITS}
    lower = {name: most for name, value in limits.items() if value is not None and value > most}
    if envelope.token_limit is None:
        lower["max_tokens"] = most
    if lower:
        changes.update(lower)
        call.envelope = msgspec.structs.replace(envelope, **lower)
