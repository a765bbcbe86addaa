"""No request is read in two ways: the whole corpus is refused, whole and split at every byte, and nothing behind it is taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from penstock.net.server import Reply, Request, Server
from tests.net.smuggling import ACCEPTED, BEHIND, CHUNKS, CODINGS, FIELDS, LENGTHS, REFUSED, REQUEST_LINES, STATUS
from tests.net.sockets import exchange, serving

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PLAIN_HEAD = b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"
TABLES = {
    "lengths": LENGTHS,
    "codings": CODINGS,
    "chunks": CHUNKS,
    "fields": FIELDS,
    "request lines": REQUEST_LINES,
}
SPLIT = (
    "two lengths", "a space before the colon", "length and chunks", "chunks twice", "a folded coding", "bare LF",
    "LF behind the size", "a length in the trailer", "nothing behind the data", "CR in a value", "no last line",
    "a URL without host", "a coding in the trailer", "a leading nought", "LF in an extension",
)  # fmt: skip


class Seen:
    """A server's port, and the paths that its handler was asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.server: Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return self.server.port

    async def handle(self, request: Request, reply: Reply) -> None:
        self.paths.append(request.path)
        reply.send(200, [], b"[%b %b]" % (request.path.encode(), request.body))


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    found = Seen()
    async with serving(found.handle, body_timeout_s=2.0, header_timeout_s=2.0) as server:
        found.server = server
        yield found


def _refused(got: bytes, name: str) -> None:
    status = int(got[9:12] or 0)
    assert status in STATUS.get(name, {400}), (name, got)
    assert len(re.findall(rb"HTTP/1.1 \d{3} ", got)) == 1, (name, got)
    assert b"\r\nconnection: close\r\n" in got, name


@pytest.mark.parametrize("table", TABLES)
async def test_what_could_be_read_in_two_ways_is_refused(seen: Seen, table: str) -> None:
    for name, data in TABLES[table].items():
        seen.paths.clear()
        _refused(await exchange(seen.port, data + BEHIND), name)
        assert "/smuggled" not in seen.paths, name
        assert name in CHUNKS or not seen.paths, name


@pytest.mark.parametrize("table", TABLES)
async def test_the_same_behind_a_good_request_in_one_write(seen: Seen, table: str) -> None:
    for name, data in TABLES[table].items():
        seen.paths.clear()
        got = await exchange(seen.port, PLAIN_HEAD + data + BEHIND)
        assert got.startswith(b"HTTP/1.1 200 OK"), (name, got)
        first, mark, rest = got.partition(b"[/plain ok]")
        assert mark, first
        _refused(rest, name)
        assert seen.paths == ["/plain"], name


@pytest.mark.parametrize("name", SPLIT)
async def test_the_same_split_at_every_byte(seen: Seen, name: str) -> None:
    data = REFUSED[name] + BEHIND
    for start in range(1, len(REFUSED[name])):
        _refused(await _in_two(seen.port, data, start), f"{name}")
    assert not seen.paths


async def _in_two(port: int, data: bytes, at: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data[:at])
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the server, in the same loop, has read the first part
        writer.write(data[at:])
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("name", ACCEPTED)
async def test_what_is_odd_and_clear_is_read_as_it_is_meant(seen: Seen, name: str) -> None:
    data, path, body = ACCEPTED[name]
    for cut in (0, len(data) // 3, len(data) // 2, len(data) - 1):
        got = await _in_two(seen.port, data + NEXT, cut) if cut else await exchange(seen.port, data + NEXT)
        assert got.count(b"HTTP/1.1 200") == 2, (name, cut, got)
        assert b"[%b %b]" % (path, body) in got
        assert b"[/next ]" in got
    assert set(seen.paths) == {path.decode(), "/next"}


async def test_other_protocols_are_named(seen: Seen) -> None:
    for name, words in (
        ("the preface of HTTP/2", b"HTTP/2 is not spoken"),
        ("a handshake of TLS", b"does not speak TLS"),
    ):
        assert words in await exchange(seen.port, REFUSED[name])
