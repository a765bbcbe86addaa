"""The pooled client against servers that answer, stall, break off and talk nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.core.errors import BadRequest, PenstockError, Unavailable, UpstreamFailed, UpstreamTimeout
from penstock.net.client import Client, Pool, Timeouts, parse_origin
from penstock.net.response import HIGH_WATER_BYTES, UpstreamConnection
from penstock.net.server import Reply, Request, Server
from tests.net.sockets import serving, until

QUICK = Timeouts(connect_s=0.5, first_byte_s=0.3, stall_s=0.3)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def client(**options: float) -> AsyncIterator[Client]:
    made = Client(**options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """A server of raw bytes; its URL."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def answering(*answers: bytes, stay: bool = False) -> Talk:
    """Gives one answer to each request of a connection, then closes, or stays silent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
            if stay:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return talk


async def get(made: Client, url: str, timeouts: Timeouts = QUICK) -> tuple[int, bytes]:
    response = await made.request(parse_origin(url), b"GET", b"/", timeouts=timeouts)
    return response.status, await response.read()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
    ],
)
async def test_bodies_of_every_kind(answer: bytes) -> None:
    async with talking(answering(answer)) as url, client() as made:
        assert await get(made, url) == (200, b"hello")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "upstream_closed"),
        (b"HTTP/1.1 200", "upstream_truncated"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", "upstream_truncated"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "upstream_truncated"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "upstream_garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", "upstream_garbage"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n", "upstream_garbage"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", "upstream_garbage"),
    ],
)
async def test_broken_answers_are_noticed(answer: bytes, code: str) -> None:
    async with talking(answering(answer)) as url, client() as made:
        with pytest.raises(UpstreamFailed) as caught:
            await get(made, url)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"],
)
async def test_silence_has_an_end(answer: bytes) -> None:
    async with talking(answering(answer, stay=True)) as url, client() as made:
        with pytest.raises(UpstreamTimeout):
            await get(made, url)


async def test_nobody_listens() -> None:
    async with client() as made:
        with pytest.raises(UpstreamFailed) as caught:
            await get(made, "http://127.0.0.1:1")
        assert caught.value.code == "upstream_unreachable"
        with pytest.raises(UpstreamFailed):
            await get(made, "unix:/nowhere/s.sock")


async def test_connections_are_kept_and_used_again() -> None:
    peers: set[int] = set()

    async def handler(request: Request, reply: Reply) -> None:
        reply.send(200, [], request.body)

    async with serving(handler) as server, client() as made:
        origin = parse_origin(f"http://127.0.0.1:{server.port}")
        for number in range(20):
            response = await made.request(origin, b"POST", b"/x", [(b"a", b"b")], b"%d" % number)
            assert await response.read() == b"%d" % number
            peers.add(server.connections)
        assert peers == {1}
        many = await asyncio.gather(*[made.request(origin, b"POST", b"/x", (), b"y") for _ in range(10)])
        assert [await one.read() for one in many] == [b"y"] * 10
        assert server.connections <= 10


async def test_a_kept_connection_that_went_away_is_not_noticed_by_the_caller() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(OK)(reader, writer)  # one answer, then the end, without a word

    async with talking(talk) as url, client() as made:
        for _ in range(5):
            assert await get(made, url) == (200, b"hello")
        assert connections == 5


async def test_a_request_is_sent_again_only_if_nothing_had_come() -> None:
    async with talking(answering(OK, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel")) as url, client() as made:
        assert await get(made, url) == (200, b"hello")
        with pytest.raises(UpstreamFailed) as caught:
            await get(made, url)
        assert caught.value.code == "upstream_truncated"


async def test_rubbish_behind_an_answer_does_not_become_the_next_one() -> None:
    async with (
        talking(answering(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", stay=True)) as url,
        client() as made,
    ):
        for _ in range(3):
            assert await get(made, url) == (200, b"hello")


async def test_a_slow_reader_holds_the_server_back() -> None:
    written = 0

    async def flood(_request: Request, reply: Reply) -> None:
        nonlocal written
        reply.start(200, [])
        while written < 64 << 20:
            reply.write(bytes(65536))
            written += 65536
            await reply.drain()
        reply.end()

    async with serving(flood) as server, client() as made:
        response = await made.request(parse_origin(f"http://127.0.0.1:{server.port}"), b"GET", b"/", timeouts=QUICK)
        seen = -1
        while seen != written:
            seen = written
            await asyncio.sleep(0.5)  # longer than the stall timeout: a reader that is slow itself is no stall
        assert written < 32 << 20
        total = 0
        while piece := await response.piece():
            total += len(piece)
        assert total == written == 64 << 20


@pytest.mark.parametrize("how", ["abort", "cancel", "leave"])
async def test_giving_up_tells_the_server(how: str) -> None:
    left = 0

    async def hang(_request: Request, reply: Reply) -> None:
        nonlocal left
        if how != "cancel":
            reply.start(200, [])
            await reply.drain()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left += 1
            raise

    async with serving(hang) as server, client() as made:
        asking = made.request(parse_origin(f"http://127.0.0.1:{server.port}"), b"GET", b"/")
        if how == "cancel":
            task = asyncio.create_task(asking)
            await until(lambda: server.connections == 1)
            task.cancel()
        elif how == "abort":
            (await asking).abort()
        else:
            (await asking).leave()  # it does not end within a second
        await until(lambda: left == 1)


async def test_a_tail_that_nobody_reads_does_not_cost_the_connection() -> None:
    async def handler(_request: Request, reply: Reply) -> None:
        reply.start(200, [])
        reply.write(b"all that matters")
        await reply.drain()
        await asyncio.sleep(0.05)
        reply.end(b"and more")

    async with serving(handler) as server, client() as made:
        origin = parse_origin(f"http://127.0.0.1:{server.port}")
        for _ in range(3):
            response = await made.request(origin, b"GET", b"/")
            assert await response.piece() == b"all that matters"
            response.leave()
            await until(lambda: response.complete)  # noqa: B023
        assert server.connections == 1


async def test_connections_to_an_origin_are_bounded() -> None:
    go = asyncio.Event()

    async def handler(_request: Request, reply: Reply) -> None:
        await go.wait()
        reply.send(200, [], b"x")

    async with serving(handler) as server, client(max_connections=2) as made:
        origin = parse_origin(f"http://127.0.0.1:{server.port}")
        busy = [asyncio.create_task(made.request(origin, b"GET", b"/")) for _ in range(2)]
        await until(lambda: server.connections == 2)
        with pytest.raises(Unavailable):
            await made.request(origin, b"GET", b"/", timeouts=QUICK)
        waiting = asyncio.create_task(made.request(origin, b"GET", b"/"))
        given_up = asyncio.create_task(made.request(origin, b"GET", b"/"))
        await asyncio.sleep(0)
        given_up.cancel()
        go.set()
        for task in (*busy, waiting):
            assert await (await task).read() == b"x"
        assert server.connections == 2


async def test_an_answer_that_is_too_long_is_refused() -> None:
    async def handler(_request: Request, reply: Reply) -> None:
        reply.send(200, [], bytes(300_000))

    async with serving(handler) as server, client() as made:
        response = await made.request(parse_origin(f"http://127.0.0.1:{server.port}"), b"GET", b"/")
        with pytest.raises(PenstockError, match="longer than"):
            await response.read(100_000)


async def test_unix_sockets(tmp_path: Path) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        reply.send(200, [], request.headers[b"host"])

    server = Server(handler)
    await server.start(unix=tmp_path / "s")
    async with client() as made:
        assert await get(made, f"unix:{tmp_path / 's'}") == (200, b"localhost")
    await server.drain(0.1)


async def test_idle_connections_are_closed() -> None:
    async def handler(_request: Request, reply: Reply) -> None:
        reply.send(200, [], b"x")

    async with serving(handler) as server, client(idle_s=0.1) as made:
        await get(made, f"http://127.0.0.1:{server.port}")
        assert server.connections == 1
        await until(lambda: server.connections == 0)


@pytest.mark.parametrize("url", ["", "x", "ftp://a", "http://", "http://a:b", "http://a/?q", "http://a:99999999"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(BadRequest):
        parse_origin(url)


def test_addresses() -> None:
    origin = parse_origin("https://example.org/base/")
    assert (origin.host, origin.port, origin.tls, origin.base) == ("example.org", 443, True, b"/base")
    assert parse_origin("http://[::1]:80").host == "::1"
    assert str(parse_origin("http://a:1")) == "http://a:1"


class Reading:
    """A transport that knows whether it reads."""

    reads = True

    def write(self, data: bytes) -> None: ...
    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def standing(pool: Pool) -> UpstreamConnection:
    """A connection of `pool`, busy, on no socket."""
    connection = UpstreamConnection(pool)
    connection.connection_made(Reading())  # type: ignore[arg-type]
    pool.busy.add(connection)
    return connection


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("given_first", [True, False])
async def test_what_is_handed_to_one_who_gives_up_goes_to_the_next(whole: bool, given_first: bool) -> None:
    pool = Pool(parse_origin("http://127.0.0.1:1"), limit=1, idle_s=30)
    connection = standing(pool)
    first, second = (asyncio.create_task(pool._wait(15)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if not given_first:
        first.cancel()
    (pool.release if whole else pool.drop)(connection)
    first.cancel()
    assert await second is (connection if whole else None)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_is_handed_over_in_the_moment_of_the_timeout_is_not_lost() -> None:
    pool = Pool(parse_origin("http://127.0.0.1:1"), limit=1, idle_s=30)
    for _ in range(20):
        pool.idle.clear()
        connection = standing(pool)
        asker = asyncio.create_task(pool._wait(0.005))
        asyncio.get_running_loop().call_later(0.005, pool.release, connection)
        try:
            assert await asker is connection
            pool.busy.clear()
        except Unavailable:
            await until(lambda: not pool.busy)
            assert pool.idle == [connection]


async def test_one_that_could_not_connect_makes_room_for_the_next() -> None:
    async with client(max_connections=1) as made:
        origin = parse_origin("http://127.0.0.1:1")
        failures = await asyncio.wait_for(
            asyncio.gather(
                *[made.request(origin, b"GET", b"/", timeouts=Timeouts(connect_s=60)) for _ in range(3)],
                return_exceptions=True,
            ),
            30,
        )
        assert [getattr(one, "code", "") for one in failures] == ["upstream_unreachable"] * 3


async def test_a_reader_that_is_behind_does_not_hurry_the_next_answer() -> None:
    """The connection of an answer that is whole and not read yet may be another one's: that one's pauses are its own."""
    pool = Pool(parse_origin("http://127.0.0.1:1"), limit=1, idle_s=30)
    connection, transport = UpstreamConnection(pool), Reading()
    connection.connection_made(transport)  # type: ignore[arg-type]
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    size = 2 * HIGH_WATER_BYTES
    pool.busy.add(connection)
    first = connection.send(b"", 10**12, 10**12, 10**12)
    connection.data_received(head % size + bytes(size - 1))
    assert not transport.reads
    connection.data_received(b"x")
    assert first.complete
    assert transport.reads
    assert pool.take_idle() is connection
    second = connection.send(b"", 10**12, 10**12, 10**12)
    connection.data_received(head % (2 * size) + bytes(size))
    assert not transport.reads
    assert len(await first.read()) == size
    assert not transport.reads, "the second one's reader has read nothing"
    assert len(await second.piece()) == size
    assert transport.reads
