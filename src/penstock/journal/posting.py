"""Compressed requests to one sink over HTTP."""

import base64
import re
import zlib
from urllib.parse import unquote, urlsplit

import msgspec

from penstock.core.errors import BadRequest, Unavailable, UpstreamFailed
from penstock.net.client import Client, Timeouts, parse_origin

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_ANSWER_BYTES = 64 * 1024 * 1024
_LONGEST_WAIT_S = 60.0
# Where a sink says that it is busy or broken for now: opentelemetry.io/docs/specs/otlp, "Retryable Response Codes", and 500.
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink said."""

    status: int
    body: bytes


class Poster:
    """Asks one server; `name` is what it is called in messages, `url` may hold a name and password."""

    def __init__(self, name: str, url: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Without asking anything yet.

        Raises:
            BadRequest: if `url` is none.
        """
        clean, authorization = _credentials(url)
        self.name = name
        self._origin = parse_origin(clean)
        self._headers = [(key.lower().encode(), value.encode()) for key, value in headers]
        if authorization:
            self._headers.append((b"authorization", authorization))
        self._client = Client(max_connections=4)
        self._timeouts = Timeouts(connect_s=2.0, first_byte_s=30.0, stall_s=10.0, answer_s=60.0)

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Answer:
        """One request and its answer, unless that is "later".

        Raises:
            Unavailable: if it is to be asked again later; `retry_after` says when, if the server did.
            UpstreamFailed: if it is away.
            UpstreamTimeout: if it takes too long.
        """
        headers = list(self._headers)
        if body:
            headers += ((b"content-type", kind.encode()), (b"content-encoding", b"gzip"))
            body = _gzip(body)
        response = await self._client.request(
            self._origin, method.encode(), path.encode(), headers, body, self._timeouts
        )
        told = response.header(b"retry-after")
        answer = Answer(status=response.status, body=await response.read(_ANSWER_BYTES))
        if answer.status in _LATER:
            raise Unavailable(self.complaint(answer), retry_after=_seconds(told))
        return answer

    def complaint(self, answer: Answer) -> str:
        """A sentence about an answer that was not what was hoped for."""
        return f"{self.name} at {self._origin} answered {answer.status}: {answer.body[:300].decode(errors='replace')}"

    def failure(self, answer: Answer) -> UpstreamFailed:
        """The error for an answer after which the records wait."""
        return UpstreamFailed(self.complaint(answer))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def parse_headers(text: str) -> tuple[tuple[str, str], ...]:
    """Header fields written as OpenTelemetry writes them: `name=value,name=value`, values percent-encoded.

    Raises:
        BadRequest: if one has no name or no value, or is no field.
    """
    found = []
    for pair in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = pair.partition("=")
        plain = unquote(value.strip())
        if not equals or not _NAME.fullmatch(name.strip()) or not plain.isascii() or not plain.isprintable():
            raise BadRequest(
                f"Header fields are written name=value, separated by commas; {name!r} is not.", param="ship"
            )
        found.append((name.strip().lower(), plain))
    return tuple(found)


def _credentials(url: str) -> tuple[str, bytes]:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadRequest("A sink's address is not a URL.", param="url") from None
    person, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, b""
    secret = base64.b64encode(unquote(person).encode())
    return parts._replace(netloc=place).geturl(), b"Basic " + secret


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def _seconds(told: bytes | None) -> float | None:
    """`Retry-After` in seconds, bounded; its other form, a date, is not heeded."""
    return min(float(told), _LONGEST_WAIT_S) if told is not None and told.isdigit() else None
