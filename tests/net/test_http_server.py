"""The HTTP edge: what is understood, what is refused, and what never waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import pytest

from penstock.core.errors import NotFound
from penstock.net.server import Reply, Request, Server
from tests.net.sockets import exchange, serving, until

PLAIN = [(b"content-type", b"text/plain")]
HOST = b"Host: a\r\n"
CLOSE = b"Connection: close\r\n"


async def echo(request: Request, reply: Reply) -> None:
    reply.send(200, PLAIN, b"%b %b %b" % (request.method.encode(), request.path.encode(), request.body))


async def pieces(request: Request, reply: Reply) -> None:
    reply.start(200, PLAIN)
    for word in (b"one ", b"two "):
        reply.write(word)
        await reply.drain()
    reply.end(b"three")


async def test_whole_replies_keep_the_connection() -> None:
    async with serving(echo) as server:
        got = await exchange(
            server.port, b"GET /a HTTP/1.1\r\n" + HOST + b"\r\nGET /b?q HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
        )
        first, second = got.split(b"HTTP/1.1 200 OK")[1:]
        assert first.endswith(b"GET /a ")
        assert b"connection" not in first
        assert second.endswith(b"GET /b ")
        assert b"connection: close" in second


async def test_replies_in_pieces() -> None:
    async with serving(pieces) as server:
        got = await exchange(server.port, b"GET / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        head, body = got.split(b"\r\n\r\n", 1)
        assert b"transfer-encoding: chunked" in head
        assert body == b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"


async def test_http_1_0_gets_no_chunks_and_a_closed_connection() -> None:
    async with serving(pieces) as server:
        got = await exchange(server.port, b"GET / HTTP/1.0\r\n\r\n")
        assert b"chunked" not in got
        assert got.endswith(b"\r\n\r\none two three")


async def test_head_has_no_body() -> None:
    for handler in (echo, pieces):
        async with serving(handler) as server:
            got = await exchange(server.port, b"HEAD / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
            assert got.startswith(b"HTTP/1.1 200")
            assert got.endswith(b"\r\n\r\n")


async def test_chunked_bodies_and_trailers() -> None:
    body = b"3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nHost: evil\r\nX: y\r\n\r\n"
    async with serving(echo) as server:
        got = await exchange(
            server.port,
            b"POST /t HTTP/1.1\r\n"
            + HOST
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + body
            + b"GET /n HTTP/1.1\r\n"
            + HOST
            + CLOSE
            + b"\r\n",
        )
        assert b"POST /t abcdefg" in got
        assert got.endswith(b"GET /n ")


REFUSED = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + b"Host: b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x3\r\n\r\nabc",
    "an empty length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: \r\n\r\nabc",
    "length and chunks": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "gzip and chunks": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks and gzip": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\n\r\nabc",
    "two codings": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a hidden coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a space before the name": b"POST / HTTP/1.1\r\n" + HOST + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF between fields": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rY: b\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "a folded coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a NUL in a name": b"GET / HTTP/1.1\r\n" + HOST + b"X\x00: b\r\n\r\n",
    "a NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: \x00\r\n\r\n",
    "a field without colon": b"GET / HTTP/1.1\r\n" + HOST + b"X\r\n\r\n",
    "an empty name": b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "LF after a chunk's size": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "a chunk longer than said": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "a chunk's size in words": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond all numbers": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"f" * 30
    + b"\r\nabc",
    "a space in the path": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes in the path": b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nonsense": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(name: str) -> None:
    seen: list[str] = []

    async def handler(request: Request, reply: Reply) -> None:
        seen.append(request.path)
        reply.send(200, PLAIN, b"")

    async with serving(handler) as server:
        got = await exchange(server.port, REFUSED[name] + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n")
        assert got.startswith(b"HTTP/1.1 400 "), got
        assert got.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in got
        assert b'"code":"bad_http"' in got
        assert "/smuggled" not in seen
        assert server.refusals == {400: 1}


async def test_a_good_request_before_a_bad_one_is_answered_first() -> None:
    async with serving(echo) as server:
        got = await exchange(server.port, b"GET /good HTTP/1.1\r\n" + HOST + b"\r\n" + REFUSED["bare LF"])
        assert got.index(b"GET /good ") < got.index(b"HTTP/1.1 400")


async def test_nothing_behind_a_last_request_is_read() -> None:
    async with serving(echo) as server:
        last = b"GET /last HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
        got = await exchange(server.port, last + b"GET /more HTTP/1.1\r\n" + HOST + b"\r\n")
        assert got.endswith(b"GET /last ")


@pytest.mark.parametrize("split", [1, 7, 40])
async def test_requests_may_come_in_any_pieces(split: int) -> None:
    data = (
        b"POST /p HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 5\r\n\r\nhello"
        + b"GET /x HTTP/1.1\r\n"
        + HOST
        + CLOSE
        + b"\r\n"
    )
    async with serving(echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for start in range(0, len(data), split):
            writer.write(data[start : start + split])
            await writer.drain()
            await asyncio.sleep(0)
        got = await reader.read()
        assert b"POST /p hello" in got
        assert got.endswith(b"GET /x ")
        writer.close()


async def test_limits_of_size() -> None:
    async with serving(echo, max_header_bytes=1000, max_body_bytes=100) as server:
        for request, status in (
            (b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
            (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 2000, 431),
            (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 300 + b"\r\n", 431),
            (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 101\r\n\r\n" + b"x" * 101, 413),
            (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
            (
                b"POST / HTTP/1.1\r\n"
                + HOST
                + b"Transfer-Encoding: chunked\r\n\r\n65\r\n"
                + b"x" * 101
                + b"\r\n0\r\n\r\n",
                413,
            ),
            (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n" + CLOSE + b"\r\n" + b"x" * 100, 200),
        ):
            got = await exchange(server.port, request)
            assert got.startswith(b"HTTP/1.1 %d " % status), (request[:60], got)


async def test_limits_of_time() -> None:
    quick = {"header_timeout_s": 0.2, "body_timeout_s": 0.2, "idle_timeout_s": 0.3}
    async with serving(echo, **quick) as server:
        slow_head = await exchange(server.port, b"GET / HTTP/1.1\r\nHo")
        assert slow_head.startswith(b"HTTP/1.1 408 ")
        slow_body = await exchange(server.port, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nab")
        assert slow_body.startswith(b"HTTP/1.1 408 ")
        assert await exchange(server.port, b"") == b"", "an idle connection closes without a word"
        kept = await exchange(server.port, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert kept.startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_drips_is_cut_off_all_the_same() -> None:
    async with serving(echo, header_timeout_s=0.4) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        began = time.monotonic()

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.01)

        task = asyncio.create_task(drip())
        got = await reader.read()
        assert got.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 60
        task.cancel()
        writer.close()


async def test_a_client_that_reads_nothing_is_let_go() -> None:
    async def flood(_request: Request, reply: Reply) -> None:
        reply.start(200, PLAIN)
        while not reply.gone:
            reply.write(bytes(65536))
            await reply.drain()

    async with serving(flood, write_timeout_s=0.3) as server:
        _reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await until(lambda: server.connections == 1)
        await until(lambda: server.connections == 0)
        writer.close()


async def test_pipelined_requests_do_not_pile_up_behind_a_slow_reader() -> None:
    served = 0

    async def big(_request: Request, reply: Reply) -> None:
        nonlocal served
        served += 1
        reply.send(200, PLAIN, bytes(1 << 20))

    async with serving(big) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 200)
        seen = -1
        while seen != served:
            seen = served
            await asyncio.sleep(0.2)
        assert served < 60
        left = 200 * ((1 << 20) + 50)
        while served < 200:
            left -= len(await reader.read(1 << 20))
            assert left > 0
        writer.close()


async def test_too_many_connections_are_told_so_at_once() -> None:
    async with serving(echo, max_connections=3) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        await until(lambda: server.connections == 3)
        for _ in range(20):
            got = await exchange(server.port, b"")
            assert got.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in got
        held[0][1].close()
        await until(lambda: server.connections == 2)
        assert (await exchange(server.port, b"GET / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")).startswith(
            b"HTTP/1.1 200 "
        )
        for _, writer in held:
            writer.close()


async def test_expect_100_continue() -> None:
    async with serving(echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        got = await exchange(server.port, b"POST / HTTP/1.1\r\n" + HOST + b"Expect: tea\r\nContent-Length: 2\r\n\r\nok")
        assert got.startswith(b"HTTP/1.1 417 ")


async def test_an_offer_of_another_protocol_is_not_taken() -> None:
    offer = b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n"
    last = b"GET /z HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    async with serving(echo) as server:
        got = await exchange(server.port, b"GET /u HTTP/1.1\r\n" + HOST + offer + b"\r\n" + last)
        assert b"GET /u " in got
        assert got.endswith(b"GET /z ")
        for body in (b"Content-Length: 3\r\n%b\r\nabc", b"Transfer-Encoding: chunked\r\n%b\r\n3\r\nabc\r\n0\r\n\r\n"):
            got = await exchange(server.port, b"POST /u HTTP/1.1\r\n" + HOST + body % offer + last)
            assert b"POST /u abc" in got
            assert got.endswith(b"GET /z ")


async def test_an_unknown_version_is_said_to_be_one() -> None:
    async with serving(echo) as server:
        got = await exchange(server.port, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n")
        assert got.startswith(b"HTTP/1.1 505 ")


async def test_handlers_that_fail() -> None:
    async def handler(request: Request, reply: Reply) -> None:
        if request.path == "/known":
            raise NotFound("Not here.")
        if request.path == "/late":
            reply.start(200, PLAIN)
            reply.write(b"begun")
        if request.path != "/nothing":
            raise KeyError("oops")

    async with serving(handler) as server:
        ask = b"GET %b HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
        assert (await exchange(server.port, ask % b"/known")).startswith(b"HTTP/1.1 404 ")
        broke = await exchange(server.port, ask % b"/broke")
        assert broke.startswith(b"HTTP/1.1 500 ")
        assert b"oops" not in broke
        late = await exchange(server.port, ask % b"/late")
        assert late.endswith(b"begun\r\n"), "a reply that broke does not end as if it were whole"
        assert await exchange(server.port, ask % b"/nothing") == b""
        assert server.failures == 2


async def test_the_handler_is_cancelled_when_the_client_leaves() -> None:
    state = {"running": 0, "cancelled": 0, "finished": 0}
    go = asyncio.Event()

    async def handler(request: Request, reply: Reply) -> None:
        if request.path == "/protected":
            reply.shielded()
        if request.path == "/stream":
            reply.start(200, PLAIN)
            await reply.drain()
        state["running"] += 1
        try:
            await go.wait()
            state["finished"] += 1
        except asyncio.CancelledError:
            state["cancelled"] += 1
            raise
        finally:
            state["running"] -= 1

    async with serving(handler) as server:
        for index, path in enumerate((b"/whole", b"/stream")):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, HOST))
            await until(lambda: state["running"] == 1)
            writer.close()
            await until(lambda: state["cancelled"] == index + 1)  # noqa: B023
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /protected HTTP/1.1\r\n" + HOST + b"\r\n")
        await until(lambda: state["running"] == 1)
        writer.close()
        await until(lambda: server.connections == 0)
        assert state["running"] == 1
        go.set()
        await until(lambda: state["finished"] == 1)


async def test_drain() -> None:
    go = asyncio.Event()

    async def handler(_request: Request, reply: Reply) -> None:
        await go.wait()
        reply.send(200, PLAIN, b"done")

    server = Server(handler)
    await server.start()
    port = server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: server.connections == 2)
    draining = asyncio.create_task(server.drain(15))
    assert await idle.read() == b""
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)
    go.set()
    got = await reader.read()
    assert b"connection: close" in got
    assert got.endswith(b"done")
    await draining
    writer.close()
    idle_writer.close()


async def test_drain_ends_in_time_whatever_hangs() -> None:
    async def handler(_request: Request, _reply: Reply) -> None:
        await asyncio.Event().wait()

    server = Server(handler)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    await until(lambda: server.connections == 1)
    await server.drain(0.1)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()


async def test_a_header_cannot_be_split() -> None:
    async def handler(_request: Request, reply: Reply) -> None:
        reply.send(200, [(b"x", b"a\r\nset-cookie: b")], b"")

    async with serving(handler) as server:
        got = await exchange(server.port, b"GET / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert b"cookie" not in got


async def test_unix_sockets_and_shared_ports(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    server = Server(echo)
    await server.start(unix=path)
    assert path.stat().st_mode & 0o777 == 0o600
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /u HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert (await reader.read()).endswith(b"GET /u ")
    writer.close()
    again = Server(echo)
    await again.start(unix=path)  # over one that was left behind
    await again.drain(0.1)
    await server.drain(0.1)
    assert not path.exists()
    one, two = Server(echo), Server(echo)
    await one.start(reuse_port=True)
    await two.start(port=one.port, reuse_port=True)
    assert one.port == two.port
    with pytest.raises(OSError, match="in use"):
        await Server(echo).start(port=one.port)
    await one.drain(0.1)
    await two.drain(0.1)


async def test_sockets_may_be_handed_in() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server(echo)
    await server.start(sock=sock)
    assert server.port == sock.getsockname()[1]
    await server.drain(0.1)
