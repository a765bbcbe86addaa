"""A plain request is read without the parser, any other with it: both must understand the same bytes in the same way."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.net.connection import Connection
from penstock.net.plain import Reader
from penstock.net.server import Reply, Request, Server, ServerLimits

METHODS = [b"GET", b"POST", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"PRI", b"DELETE", b""]
TARGETS = [
    b"/", b"/v1/chat/completions", b"/a?b=c", b"//a", b"/a#b", b"*", b"http://a/b", b"http://a?/b", b"/\xff", b"/a b", b"/%00",
    b"/a\tb", b"/\x00", b"/\"<>", b"/a?b?c", b"/{x}|^`", b"/\\",
]  # fmt: skip
VERSIONS = [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b""]
ENDS = [b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n"]
FIELDS = [
    b"Host: a", b"Host: a", b"Host: a", b"host:a", b"Host : a", b"Content-Length: 3", b"Content-Length: 3", b"content-length:0", b"Content-Length: 03",
    b"Content-Length: +3", b"Content-Length: 3, 3", b"Content-Length:", b"Content-Length: 5000000000", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, chunked", b"Connection: close", b"Connection: keep-alive", b"Connection: Keep-Alive, close", b"Connection: upgrade",
    b"Upgrade: h2c", b"Expect: 100-continue", b"Accept: */*", b"X: \xe4", b"X: a\x00", b"X: a\x7f", b" folded", b"X", b": x", b"X:", b"X:\t y \t", b"X Y: z",
    b"Authorization: Bearer x", b"Content-Type: application/json", b"Te: trailers", b"Trailer: X", b"Keep-Alive: 5", b"Cookie: a=b",
    b"Proxy-Connection: close", b"X(y): z",
]  # fmt: skip
BODIES = [b"", b"", b"abc", b"abc", b"ab", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\n\r\n"]


GOOD_FIELDS = [
    b"Accept: */*",
    b"X:\t y \t",
    b"x-y:z",
    b"Connection: keep-alive",
    b"Cookie: a=b",
    b"Authorization: Bearer x",
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A good request, with up to two things wrong or odd."""
    faults = draw(st.sampled_from([0, 0, 1, 1, 2]))
    places = [draw(st.sampled_from(["line", "field", "end", "body"])) for _ in range(faults)]
    body = draw(st.binary(max_size=8))
    line = [draw(st.sampled_from([b"GET", b"POST"])), draw(st.sampled_from(TARGETS[:3])), b"HTTP/1.1"]
    if "line" in places:
        part = draw(st.sampled_from([0, 1, 2]))
        line[part] = draw(st.sampled_from((METHODS, TARGETS, VERSIONS)[part]))
    fields = [b"Host: a", *draw(st.lists(st.sampled_from(GOOD_FIELDS), max_size=3, unique=True))]
    if body or draw(st.booleans()):
        fields.append(b"Content-Length: %d" % len(body))
    for _ in range(places.count("field")):
        fields.insert(draw(st.integers(0, len(fields))), draw(st.sampled_from(FIELDS)))
        if draw(st.booleans()):
            fields.pop(draw(st.integers(0, len(fields) - 1)))
    if "body" in places:
        body = draw(st.sampled_from(BODIES))
    ends = [b"\r\n"] * (len(fields) + 1)
    if "end" in places:
        ends[draw(st.integers(0, len(fields)))] = draw(st.sampled_from(ENDS))
    return b"".join(part + end for part, end in zip([b" ".join(line), *fields], ends, strict=True)) + b"\r\n" + body


class Transport:
    """Takes what is written, and does what it is told at once."""

    def __init__(self) -> None:
        self.closed = False
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def get_extra_info(self, _name: str) -> Any:
        return None

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Blind(Reader):
    """Finds nothing plain."""

    def request(self, *_: Any) -> None:
        return None


Seen = tuple[list[tuple[Any, ...]], bytes, bool]


async def _read(pieces: list[bytes], *, blind: bool) -> Seen:
    seen: list[tuple[Any, ...]] = []

    async def handler(request: Request, reply: Reply) -> None:
        seen.append((request.method, request.path, request.query, dict(request.headers), request.body, request.version))
        reply.send(200, [], b"")

    server = Server(handler, limits=ServerLimits(max_body_bytes=1000))
    await server.start()
    if blind:
        server.reader = Blind()
    connection, transport = Connection(server), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        if piece:
            connection.data_received(piece)
        for _ in range(3):
            await asyncio.sleep(0)
    told = transport.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")  # if the body was not there yet
    status = b"".join(part[:3] + b" " for part in told.split(b"HTTP/1.1 ")[1:] if part[3:4] == b" ")
    connection.connection_lost(None)
    await server.drain(0)
    return seen, status, transport.closed


@settings(max_examples=300, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3), st.integers(0, 200))
async def test_both_understand_the_same(sent: list[bytes], cut: int) -> None:
    whole = b"".join(sent)
    parsed = await _read([whole], blind=True)
    assert await _read(sent, blind=False) == parsed, "one request a read, as clients send them"
    assert await _read([whole], blind=False) == parsed, "all in one read"
    assert await _read([whole[:cut], whole[cut:]], blind=False) == parsed, "cut anywhere"
    assert await _read([whole[i : i + 1] for i in range(len(whole))], blind=True) == parsed, "byte by byte"
