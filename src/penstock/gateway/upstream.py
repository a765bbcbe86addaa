"""What an engine's refusal means to the client."""

import msgspec

from penstock.core.errors import BadRequest, PenstockError, TooLarge, Unavailable, UpstreamFailed
from penstock.gateway.ports import Answer

UNREACHABLE = frozenset({"upstream_unreachable", "upstream_connect"})  # codes: the replica took no connection
ELSEWHERE = frozenset({429, 500, 502, 503})  # answers that another replica may better


def busy(response: Answer) -> bool:
    """Whether the replica is well, and has only too much to do."""
    return response.status == 429 or (response.status == 503 and response.header(b"retry-after") is not None)


class _Detail(msgspec.Struct, frozen=True):
    message: str = ""
    param: str | None = None
    code: str | int | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: _Detail = _Detail()
    message: str = ""  # older engines


_decode = msgspec.json.Decoder(_Refusal).decode


def refusal(response: Answer, body: bytes) -> PenstockError:
    """The error to tell the client for an answer whose status is not 200.

    The client's own mistakes (400, 413, 422) are passed on in the engine's words; everything else is the engine's failure.
    """
    try:
        told = _decode(body)
    except ValueError:
        told = _Refusal()
    message = (told.error.message or told.message)[:2000]
    status = response.status
    if status in {400, 422}:
        code = told.error.code if isinstance(told.error.code, str) else None
        return BadRequest(message or "The engine refused the request.", param=told.error.param, code=code)
    if status == 413:
        return TooLarge(message or "The engine finds the request too large.")
    if status in {429, 503}:
        return Unavailable(
            "The engine takes no more requests now. Try again in a moment.",
            code="engine_busy",
            retry_after=_wait(response),
        )
    return UpstreamFailed(f"The engine answered with status {status}.", code="upstream_status")


def _wait(response: Answer) -> float:
    value = response.header(b"retry-after")
    return min(60.0, float(value)) if value is not None and value.isdigit() else 1.0
