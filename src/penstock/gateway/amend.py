"""Between screen and recall: what is changed of the body before it is sent on. Everything else stays as it was written."""

from typing import Any

from msgspec import UNSET

from penstock.gateway.call import Call
from penstock.gateway.decode import envelope_of
from penstock.gateway.notice import pick
from penstock.gateway.salt import salt
from penstock.gateway.settle import bound
from penstock.gateway.shape import shape
from penstock.wire.decoding import bad_body
from penstock.wire.edit import prepend, replaced, with_system

_ASK_USAGE = b'"stream_options":{"include_usage":true}'


def _want_usage(call: Call, changes: dict[str, Any]) -> None:
    if not changes and b'"stream_options"' not in call.body:
        call.body = prepend(call.body, _ASK_USAGE)
    else:
        changes["stream_options"] = {"include_usage": True}


def _bound(call: Call) -> None:
    try:
        bound(call)
    except ValueError as error:
        raise bad_body(call.body, error) from None


def amend(call: Call, *, again: bool = False) -> None:
    """Applies the arm's overrides, the route's trim and limit and the pool's name for the model, and asks for the usage of streams.

    `again`: of a request that has been amended for another pool or arm, and counts as one.

    Raises:
        BadRequest: if the body cannot be edited, or an override makes it invalid.
    """
    leg = call.leg
    route = call.route
    if leg is None or route is None:
        return
    if (call.holder is not None or route.limited) and call.envelope.token_limit is None:
        _bound(call)
    if (route.fallbacks and not call.fallback) or call.shadow is not None or call.beside is not None:
        call.plain = call.body
    changes: dict[str, Any] = {}
    envelope = call.envelope
    try:
        if leg.edits and leg.arm is not None:
            if leg.arm.system is not None and call.operation in {"chat", "responses"}:
                call.body = with_system(call.body, leg.arm.system)
            if leg.arm.params:
                call.body = replaced(call.body, leg.arm.params)
            call.envelope = envelope = envelope_of(call.operation, call.body)
        if route.shaped:
            changes = shape(call)
        model = leg.entry.pool.model
        if model is not None and model != envelope.model:
            changes["model"] = model
        if call.stream and not envelope.wants_usage:
            _want_usage(call, changes)
        if changes:
            call.body = replaced(call.body, changes)
        if leg.entry.salted or envelope.cache_salt is not UNSET:
            salt(call)
        if call.at >= call.gateway.notice_at and not again:
            pick(call)
    except ValueError as error:
        raise bad_body(call.body, error) from None
