"""One request's way, step by step: the only function that knows their order."""

from __future__ import annotations

import asyncio
import time

from penstock.core.errors import PenstockError, Unavailable, UpstreamFailed, UpstreamTimeout
from penstock.gateway.amend import amend
from penstock.gateway.authenticate import authenticate
from penstock.gateway.call import Call
from penstock.gateway.cascade import draft, escalate
from penstock.gateway.coalesce import share
from penstock.gateway.decode import decode
from penstock.gateway.dispatch import dispatch, release
from penstock.gateway.elsewhere import elsewhere
from penstock.gateway.index import Caller
from penstock.gateway.interleave_stream import relay_both
from penstock.gateway.recall import recall
from penstock.gateway.recorder import finish
from penstock.gateway.relay import relay
from penstock.gateway.replay import replay
from penstock.gateway.resolve import resolve
from penstock.gateway.resume import resume_stream
from penstock.gateway.screen import screen
from penstock.gateway.semantic import seek
from penstock.gateway.settle import cost, hold, prompt_tokens, reserve, settle, try_reserve, used
from penstock.gateway.stream import closing_event, relay_stream
from penstock.gateway.trace import carry
from penstock.wire.openai import error_body, error_event

_BROKE_OFF = frozenset({"upstream_truncated", "upstream_error"})  # codes of an answer that its engine did not end


async def walk(call: Call) -> None:
    """Answers one request and records it; whatever happens on the way, what was taken is given back and one `Exchange` is left.

    The reply's last byte goes out when the record is in the kernel.
    """
    gateway, headers = call.gateway, call.request.headers
    failure: PenstockError | None = None
    ok: bool | None = True  # whether the replica did its part
    gateway.meters.in_flight += 1
    try:
        if b"traceparent" in headers or b"x-request-id" in headers or b"baggage" in headers:
            carry(call)
        decode(call)
        caller = call.caller = authenticate(call.index, headers.get(b"authorization"), call.at)
        if caller.limited:
            holder = call.holder = caller.holder or hold(gateway.limiter, caller)
            if not gateway.limiter.try_count(holder, now := time.monotonic()):
                await gateway.limiter.count(holder, now, caller.down)
        resolve(call)
        if call.rules is not None:
            if call.rules.strict:
                gateway.journal.check_strict()
            screen(call)
        amend(call)
        if recall(call) or (call.seeking and await seek(call)):
            await replay(call)
        elif not (
            call.route is not None
            and call.route.coalesces
            and call.beside is None
            and await share(call, caller, _answer)
        ):
            if not try_reserve(call):
                await reserve(call)
            await _answer(call, caller)
    except PenstockError as error:
        failure = error
        ok = not isinstance(error, UpstreamFailed | UpstreamTimeout)
        _fail(call, error)
    except asyncio.CancelledError:
        ok = None
        call.outcome, call.error = "cancelled", "client_left"
        raise
    except Exception:
        call.status, call.outcome, call.error = call.status or 500, "error", "internal_error"
        raise
    finally:
        gateway.meters.in_flight -= 1
        usage = used(call)
        release(call, usage, ok=ok)
        nanousd = cost(call, usage)
        settle(call, usage, nanousd)
        gateway.recorder.add(call, usage, nanousd)
        call.draft = call.response = call.setback = None  # what leads back to it
    if _is_strict(call):
        await _strictly(call, failure)
    else:
        call.reply.promise()
        gateway.recorder.end(call, failure)


async def _answer(call: Call, caller: Caller) -> None:
    """Steps 8 to 10, elsewhere once more where they fail before the client has any of an answer."""
    while True:
        try:
            state = call.pool
            if state is not None and call.place is None:
                tokens = prompt_tokens(call)
                call.place = state.try_enter(caller.tenant, tokens) or await state.enter(caller.tenant, tokens)
            call.admitted_ns = time.monotonic_ns() - call.started_ns
            if call.beside is not None:
                await relay_both(call, call.beside)
            elif call.cascade is not None:
                await (relay_stream if call.stream else relay)(call, await draft(call, call.cascade))
            elif call.stream and call.route is not None and call.route.route.resume:
                await resume_stream(call)
            elif call.stream:
                await relay_stream(call, await dispatch(call))
            else:
                await relay(call, await dispatch(call))
        except (UpstreamFailed, UpstreamTimeout, Unavailable) as error:
            if call.status or not (escalate(call, error) or await elsewhere(call, error)):
                raise
        else:
            return


def _is_strict(call: Call) -> bool:
    """Whether the reply waits for the disk: by the policy that holds, or by that of the caller's tenant where the request came to no route."""
    rules = call.rules
    if rules is None and call.caller is not None and call.error:
        rules = call.index.rules.get(call.caller.tenant.policy or "default")
    return rules is not None and rules.strict


async def _strictly(call: Call, failure: PenstockError | None) -> None:
    """Ends the reply once the record is on the disk; if it does not come there, with the refusal that says so."""
    try:
        await _to_disk(call)
    except Unavailable as error:
        if call.reply.started:
            raise
        call.gateway.meters.error(error.code)
        call.tail, failure = error_body(error), error
    finish(call, failure)


async def _to_disk(call: Call) -> None:
    gateway = call.gateway
    if not gateway.recorder.flush():
        raise Unavailable("The journal cannot be written, and the audit policy is strict.", retry_after=1)
    if call.captured:
        if call.content is None or gateway.vault is None:
            raise Unavailable("The request's content cannot be kept, and the audit policy is strict.", retry_after=1)
        await gateway.vault.strict()
    await gateway.journal.strict()


def _fail(call: Call, error: PenstockError) -> None:
    call.keeps = False
    if call.status:
        call.broken = True
        call.tail = closing_event(error, error_event(error))
    else:
        call.status = error.status
        call.tail = error_body(error)
    call.error = error.code
    if call.broken:
        call.outcome = "crashed" if error.code in _BROKE_OFF else "truncated"
    else:
        call.outcome = "refused" if error.status < 500 else "error"
