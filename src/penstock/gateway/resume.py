"""Step 10, of streams on routes that say `resume`: where a replica breaks off, another one of its pool goes on.

The client sees one stream: every byte once, under the id of the first. `docs/decisions/0010-resume.md` tells how the replicas
come to agree on where it was cut.
"""

from __future__ import annotations

from penstock.core.errors import PenstockError, UpstreamFailed, UpstreamTimeout
from penstock.gateway.call import Call
from penstock.gateway.dispatch import dispatch, let_go
from penstock.gateway.stream import BrokenStream, begin, relay_stream
from penstock.gateway.trail import TokenTrail, Trail
from penstock.gateway.trail_text import TextTrail
from penstock.gateway.tries import broken
from penstock.net.client import Response
from penstock.wire.resume import HEADER, TELL
from penstock.wire.sse import DONE

MAX_RESUMES = 2
_TRAILS: dict[str, type[Trail]] = {"penstock": TokenTrail, "vllm": TextTrail}
_ASK = b"%b: %b\r\n" % (HEADER, TELL)


async def resume_stream(call: Call) -> None:
    """Dispatches a stream and relays it as `relay_stream` does, by way of another replica where one breaks off, `MAX_RESUMES` times at most.

    Of several choices, and of engines that cannot go on with an answer, streams end where they break.

    Raises:
        PenstockError: why the stream broke, if nobody could go on with it.
    """
    single = call.operation != "embeddings" and (call.envelope.n or 1) == 1
    if single:
        call.resume = _ASK
    response = await dispatch(call)
    kind = _TRAILS.get(call.leg.entry.pool.dialect) if single and call.leg is not None else None
    trail = kind(call) if kind is not None else None
    if trail is None or not trail.fits(response):
        await relay_stream(call, response)
        return
    failure: PenstockError | None = None
    for left in range(MAX_RESUMES, -1, -1):
        try:
            await relay_stream(call, response, trail)
        except PenstockError as error:
            if not trail.came:
                raise
            failure, code = _cause(error, failure), error.code
            lost = error.code == "upstream_garbage" or not isinstance(error, UpstreamFailed | UpstreamTimeout)
        else:
            return
        if trail.ended and call.usage is not None:  # the last line alone was missing
            trail.give_up()
            if not call.status:
                begin(call)
            call.tail = DONE
            return
        again = await _another(call, trail, code) if left and not lost else None
        if again is None:
            break
        response = again
    _count(call, "failed")
    trail.give_up()
    raise failure or UpstreamFailed("The engine broke off its answer.")


def _cause(error: PenstockError, earlier: PenstockError | None) -> PenstockError:
    """What the client is told: why the stream broke, rather than why it could not be gone on with."""
    if earlier is not None:
        return earlier
    if isinstance(error, BrokenStream):  # which says that the client has been told
        return UpstreamFailed(error.message, code=error.code)
    return error


async def _another(call: Call, trail: Trail, code: str) -> Response | None:
    """The head of another replica's answer that goes on with the stream, which broke off with the error `code`; None if there is none."""
    before = broken(call, code)
    if call.response is not None:
        call.response.abort()
    let_go(call, ok=False)
    if not trail.go_on():
        return None
    attempts, dispatched_ns = call.attempts, call.dispatched_ns
    call.avoid = (call.replica,)
    call.attempts = 0
    try:
        response = await dispatch(call)
    except PenstockError:
        return None
    finally:
        call.attempts += attempts
        call.dispatched_ns = dispatched_ns
    if response.status != 200 or not trail.fits(response):
        let_go(call, ok=None)
        return None
    call.resumed += 1
    call.tries = (*call.tries, before)
    _count(call, "resumed")
    return response


def _count(call: Call, result: str) -> None:
    route = call.route.route.name if call.route is not None else ""
    call.gateway.meters.cell("penstock_resumes_total", route, result).value += 1
