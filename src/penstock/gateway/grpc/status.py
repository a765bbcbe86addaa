"""From errors of the gateway, told in HTTP and OpenAI's shape, to the statuses of gRPC."""

import math
from collections.abc import Mapping
from typing import Any

import grpc
import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from penstock.core.errors import PenstockError

Metadata = tuple[tuple[str, str | bytes], ...]

# As google.rpc.Code pairs them; what an engine breaks (502) may be tried again.
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    431: grpc.StatusCode.INVALID_ARGUMENT,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_PASSED = (b"x-penstock-", b"x-ratelimit-", b"retry-after")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal or failure, as a client of gRPC is told."""

    http_status: int
    message: str
    code: str
    param: str = ""
    retry_after: float | None = None

    @property
    def status(self) -> grpc.StatusCode:
        """The status of gRPC."""
        return _CODES.get(self.http_status, grpc.StatusCode.INTERNAL)

    def metadata(self) -> Metadata:
        """The trailing metadata that tell more: the error's code, and when to come back as `google.rpc.RetryInfo`."""
        told: list[tuple[str, str | bytes]] = [("x-penstock-error-code", self.code)]
        if self.param.isascii() and self.param.isprintable() and self.param:
            told.append(("x-penstock-error-param", self.param[:512]))
        if self.retry_after is not None:
            told.append(("grpc-status-details-bin", self._details()))
        return tuple(told)

    def _details(self) -> bytes:
        """A `google.rpc.Status`: code (field 1), message (2) and, in details (3), when to try again."""
        seconds = self.retry_after or 0.0
        delay = Duration()
        delay.FromNanoseconds(math.ceil(seconds * 1e9))
        info = AnyMessage(
            type_url="type.googleapis.com/google.rpc.RetryInfo", value=_field(1, delay.SerializeToString())
        )
        number: int = self.status.value[0]
        return b"\x08%b%b%b" % (
            _varint(number),
            _field(2, self.message.encode()),
            _field(3, info.SerializeToString()),
        )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, as protobuf encodes it."""
    return b"%b%b%b" % (_varint(number << 3 | 2), _varint(len(data)), data)


def failure_of(error: PenstockError) -> Failure:
    """An error that this process found itself."""
    return Failure(
        http_status=error.status,
        message=error.message,
        code=error.code,
        param=error.param or "",
        retry_after=error.retry_after,
    )


def told_failure(status: int, headers: Mapping[bytes, bytes], body: bytes) -> Failure:
    """An error that the gateway told."""
    try:
        document = msgspec.json.decode(body)
    except ValueError:
        document = None
    wait = headers.get(b"retry-after", b"")
    return named_failure(
        status, document.get("error") if isinstance(document, dict) else None, float(wait) if wait.isdigit() else None
    )


def named_failure(status: int, error: Any, retry_after: float | None = None) -> Failure:
    """The failure that `error`, the member of an OpenAI document, describes."""
    told = error if isinstance(error, dict) else {"message": error}
    return Failure(
        http_status=status,
        message=str(told.get("message") or "The gateway gave no reason.")[:2000],
        code=str(told.get("code") or "internal_error"),
        param=str(told.get("param") or ""),
        retry_after=retry_after,
    )


def passed_metadata(headers: Mapping[bytes, bytes]) -> Metadata:
    """The fields of the gateway's reply that clients are told, as metadata."""
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers.items()
        if name.startswith(_PASSED) and value.isascii()
    )
