"""A plain request is read without the parser, any other with it: both must understand the same bytes in the same way."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import PenstockError
from penstock.net.client import Pool, parse_origin
from penstock.net.connection import Connection
from penstock.net.plain import Reader
from penstock.net.response import UpstreamConnection
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


Seen = tuple[list[tuple[Any, ...]], bytes, bool]


async def _read(pieces: list[bytes], *, blind: bool) -> Seen:
    seen: list[tuple[Any, ...]] = []

    async def handler(request: Request, reply: Reply) -> None:
        seen.append((request.method, request.path, request.query, dict(request.headers), request.body, request.version))
        reply.send(200, [], b"")

    server = Server(handler, limits=ServerLimits(max_body_bytes=1000))
    await server.start()
    if blind:
        server.reader = Reader(most_fields=0)  # finds nothing plain
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


ANSWER_FIELDS = [
    b"content-length: 3", b"Content-Length: 3", b"content-length: 0", b"content-length: 03", b"content-length: 3, 3", b"content-length: -3",
    b"transfer-encoding: chunked", b"Transfer-Encoding: chunked", b"transfer-encoding: gzip", b"transfer-encoding: chunked, chunked",
    b"connection: close", b"connection: keep-alive", b"content-type: text/event-stream", b"x: \xe4", b"x : y", b" folded", b"x", b"keep-alive: 5",
    b"upgrade: h2c", b"x:\ty \t",
]  # fmt: skip
FIRST_LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 20 OK",
    b"HTTP/1.1 429 Too Many Requests", b"HTTP/1.1 101 Switching Protocols", b"HTTP/2.0 200 OK", b"HTTP/1.1  200 OK", b"http/1.1 200 OK",
    b"HTTP/1.1 2000 OK", b"HTTP/1.1 200 \xe4",
]  # fmt: skip
CHUNKS = [
    b"3\r\nabc\r\n", b"0003\r\nabc\r\n", b"A\r\n0123456789\r\n", b"3;x=y\r\nabc\r\n", b"3 \r\nabc\r\n", b"3\nabc\r\n", b"4\r\nabc\r\n", b"-3\r\nabc\r\n",
    b"0x3\r\nabc\r\n", b"\r\nabc\r\n", b"fffffffff\r\nabc\r\n", b"3\r\nabcd\r\n", b"00\r\n",
]  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A good answer of either framing, with up to two things wrong or odd, and now and then something behind it."""
    places = draw(st.lists(st.sampled_from(["first", "field", "body", "end", "behind"]), max_size=2))
    first = draw(st.sampled_from(FIRST_LINES)) if "first" in places else FIRST_LINES[0]
    fields = [b"content-type: application/json"]
    if draw(st.booleans()):
        body = draw(st.binary(max_size=9))
        fields.append(b"content-length: %d" % len(body))
    else:
        pieces = draw(st.lists(st.binary(min_size=1, max_size=9), max_size=4))
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        if "body" in places:
            chunks.insert(draw(st.integers(0, len(chunks))), draw(st.sampled_from(CHUNKS)))
        trailer = draw(st.sampled_from([b"", b"", b"", b"x: y\r\n"]))
        body = b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"
        fields.append(b"transfer-encoding: chunked")
    for _ in range(places.count("field")):
        fields.insert(draw(st.integers(0, len(fields))), draw(st.sampled_from(ANSWER_FIELDS)))
    ends = [b"\r\n"] * (len(fields) + 1)
    if "end" in places:
        ends[draw(st.integers(0, len(fields)))] = draw(st.sampled_from(ENDS))
    head = b"".join(part + end for part, end in zip([first, *fields], ends, strict=True))
    return head + b"\r\n" + body + (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil" if "behind" in places else b"")


async def _answer(pieces: list[bytes], reader: Reader) -> tuple[int, bytes, bool, str]:
    pool = Pool(parse_origin("http://127.0.0.1:1"), limit=1, idle_s=30)
    pool.reader = reader
    connection = UpstreamConnection(pool)
    connection.connection_made(Transport())  # type: ignore[arg-type]
    pool.busy.add(connection)
    unasked = False
    response = connection.send(b"", 10**10, 10**10, 10**10)
    for piece in pieces:
        if piece and connection._response is not None:
            connection.data_received(piece)
        elif piece:
            unasked = True
    kept = connection in pool.idle and not unasked
    connection.connection_lost(None)
    try:
        body = await response.read()
    except PenstockError as error:
        return 0, b"", False, error.code
    return response.status, body, kept, ""


@settings(max_examples=400, deadline=None)
@given(answers(), st.integers(0, 120), st.integers(0, 60))
async def test_both_understand_the_same_answers(sent: bytes, cut: int, second: int) -> None:
    parsed = await _answer([sent], Reader(most_fields=0))
    for pieces in ([sent], [sent[:cut], sent[cut:]], [sent[:cut], sent[cut : cut + second], sent[cut + second :]]):
        status, body, kept, code = await _answer(pieces, Reader())
        assert (status, body, bool(code)) == (parsed[0], parsed[1], bool(parsed[3]))
        assert kept <= parsed[2] or pieces != [sent]
        if sent.endswith(b"evil"):
            assert not kept, "what stands behind an answer is not the next one's"


async def test_a_request_that_began_in_an_earlier_read_is_the_parsers() -> None:
    """A beginning too short to hold a target counts: what follows it is no head, however much it looks like one."""
    whole = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
    for begun in (b"POST ", b"P", b"GET"):
        seen, status, closed = await _read([whole + begun, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"], blind=False)
        assert (len(seen), status, closed) == (1, b"200 400 ", True), begun
