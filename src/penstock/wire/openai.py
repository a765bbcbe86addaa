"""Errors in the shape that OpenAI clients read."""

import math

import msgspec

from penstock.core.errors import PenstockError, RateLimited

_LONGEST_HEEDED_S = 60.0


class ErrorDetail(msgspec.Struct, frozen=True):
    """What `error` holds; all four fields are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """The whole error document."""

    error: ErrorDetail


_encode = msgspec.json.Encoder().encode


def error_body(error: PenstockError) -> bytes:
    """`error` as `{"error": {"message", "type", "param", "code"}}`."""
    return _encode(ErrorBody(ErrorDetail(error.message, error.type, error.param, error.code)))


def error_event(error: PenstockError) -> bytes:
    """`error` as a server-sent event: how a stream ends that could not be finished. `[DONE]` never follows it."""
    return b"data: " + error_body(error) + b"\n\n"


def error_headers(error: PenstockError) -> list[tuple[bytes, bytes]]:
    """The header fields that go with `error_body`: content type and, if it has one, `retry-after` in whole seconds.

    Over a limit for more than a minute, or for ever, `x-should-retry: false` as well: OpenAI's clients heed no longer `retry-after` than
    that, and would ask again within seconds.
    """
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, RateLimited) and (error.retry_after is None or error.retry_after > _LONGEST_HEEDED_S):
        headers.append((b"x-should-retry", b"false"))
    return headers
