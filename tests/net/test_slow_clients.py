"""Clients that take their time: each is let go in the end, and the others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest

from penstock.net.server import Reply, Request, Server
from tests.net.loops import on_both_loops
from tests.net.sockets import exchange, serving, until

PLAIN = [(b"content-type", b"text/plain")]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
QUICK = {
    "header_timeout_s": 0.3,
    "body_timeout_s": 0.3,
    "idle_timeout_s": 0.3,
    "write_timeout_s": 0.3,
    "linger_s": 0.2,
}


async def echo(request: Request, reply: Reply) -> None:
    reply.send(200, PLAIN, request.body)


async def full(_request: Request, reply: Reply) -> None:
    """Writes until the kernel takes no more, and ends there: what is left is too little to pause for."""
    reply.start(200, PLAIN)
    transport = reply._connection._transport
    assert transport is not None
    while not transport.get_write_buffer_size():
        reply.write(bytes(16384))
        await reply.drain()
    reply.end()


def deaf_socket(port: int) -> socket.socket:
    """A client that has little room for what comes."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return sock


@on_both_loops
@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_the_last_bytes_of_a_reply_wait_for_nobody_for_ever(more: bytes) -> None:
    async with serving(full, **QUICK) as server:
        with deaf_socket(server.port) as sock:
            sock.sendall(GET + more + b"\r\n")
            await until(lambda: server.connections == 1)
            await until(lambda: server.connections == 0)


@on_both_loops
async def test_one_that_leaves_half_and_reads_nothing_is_let_go() -> None:
    async with serving(full, **QUICK) as server:
        with deaf_socket(server.port) as sock:
            sock.sendall(GET + b"\r\n")
            await until(lambda: server.connections == 1)
            sock.shutdown(socket.SHUT_WR)
            await until(lambda: server.connections == 0)


@on_both_loops
async def test_half_a_close_in_a_stream_cancels_it_though_bytes_wait() -> None:
    cancelled = asyncio.Event()

    async def flood(_request: Request, reply: Reply) -> None:
        reply.start(200, PLAIN)
        try:
            while not reply.gone:
                reply.write(bytes(65536))
                await reply.drain()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(flood) as server:
        with deaf_socket(server.port) as sock:
            sock.sendall(GET + b"\r\n")
            await until(lambda: any(one.write_paused for one in server._connections))
            sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(15):
                await cancelled.wait()
            await until(lambda: server.connections == 0)


@on_both_loops
async def test_a_client_that_sips_is_let_go_and_one_that_drinks_slowly_is_not() -> None:
    size = 8 << 20

    async def big(_request: Request, reply: Reply) -> None:
        reply.send(200, PLAIN, bytes(size))

    async with serving(big, write_timeout_s=0.4, min_rate=20_000) as server:
        sipping, drinking = deaf_socket(server.port), deaf_socket(server.port)
        with sipping, drinking:
            for sock in (sipping, drinking):
                sock.sendall(GET + b"\r\n")
                sock.setblocking(False)
            loop = asyncio.get_running_loop()
            taken = 0
            began = time.monotonic()
            await until(lambda: server.connections == 2)
            while server.connections == 2:
                assert time.monotonic() - began < 15
                with contextlib.suppress(BlockingIOError):
                    sipping.recv(10)
                taken += len(await loop.sock_recv(drinking, 65536))
                await asyncio.sleep(0.02)
            while taken < size:
                taken += len(await loop.sock_recv(drinking, 1 << 20))
            assert server.connections == 1


async def test_one_that_says_nothing_has_the_time_of_a_head() -> None:
    async with serving(echo, header_timeout_s=0.3, idle_timeout_s=60) as server:
        assert await exchange(server.port, b"") == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        used_at = time.monotonic()
        while time.monotonic() - used_at < 0.7:
            await exchange(server.port, b"")
        writer.write(GET + b"\r\n")
        assert await reader.readuntil(b"\r\n\r\n"), "between requests a connection may rest for longer"
        writer.close()


async def test_an_expectation_whose_body_never_comes() -> None:
    async with serving(echo, **QUICK) as server:
        got = await exchange(
            server.port, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        )
        assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 ")


async def test_a_body_that_drips_is_cut_off() -> None:
    for head in (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
    ):
        async with serving(echo, **QUICK) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head)

            async def drip(writer: asyncio.StreamWriter = writer) -> None:
                with contextlib.suppress(ConnectionError):
                    while not writer.is_closing():
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.01)

            task = asyncio.create_task(drip())
            async with asyncio.timeout(15):
                assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            task.cancel()
            writer.close()


async def test_a_client_is_not_timed_while_it_is_not_heard() -> None:
    """Reading pauses behind many requests; half a request that stands in the buffer is not late for that."""
    go = asyncio.Event()

    async def slow(_request: Request, reply: Reply) -> None:
        await go.wait()
        reply.send(200, PLAIN, b"")

    async with serving(slow, header_timeout_s=0.2, max_pipelined=4) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write((GET + b"\r\n") * 6 + b"GET /las")
        await until(lambda: server.connections == 1)
        sent = time.monotonic()
        await until(lambda: time.monotonic() - sent > 0.5)
        go.set()
        writer.write(b"t HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(15):
            assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 7
        writer.close()


async def test_thousands_of_fields_cost_no_more_than_the_limit_allows() -> None:
    async with serving(echo) as server:
        for field in (b"a:b\r\n", b"cookie: x\r\n"):
            began = time.process_time()
            got = await exchange(server.port, b"GET / HTTP/1.1\r\nHost: a\r\n" + field * 50_000 + b"\r\n")
            assert got.startswith(b"HTTP/1.1 431 ")
            assert time.process_time() - began < 1
        got = await exchange(server.port, GET + b"".join(b"x%d: y\r\n" % n for n in range(200)) + b"\r\n")
        assert got.startswith(b"HTTP/1.1 431 ")


async def test_hundreds_that_drip_at_once_leave_the_others_served() -> None:
    async with serving(echo, **QUICK) as server:
        writers = []
        for number in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write((GET[: number % 30] + b"X")[: 1 + number % 30])
            writers.append(writer)
        for _ in range(50):
            got = await exchange(
                server.port, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
            )
            assert got.endswith(b"\r\n\r\nok")
        await until(lambda: server.connections == 0)
        assert server.refusals[408] > 100
        for writer in writers:
            writer.close()


@on_both_loops
async def test_refusals_beyond_the_limit_are_many_and_quick() -> None:
    async with serving(echo, max_connections=20, max_refused=30, linger_s=30.0) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        await until(lambda: server.connections == 20)
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
        await until(lambda: server.refusals.get(503) == 60)
        assert len(server._refused) <= 30, "those that do not listen do not pile up"
        for _ in range(100):
            got = await exchange(server.port, GET + b"\r\n")
            assert got.startswith(b"HTTP/1.1 503 ")
            assert b'"code":"too_many_connections"' in got
        for _, writer in (*held, *silent):
            writer.close()


@on_both_loops
async def test_those_in_the_queue_of_the_kernel_are_served_by_a_server_that_stops() -> None:
    server = Server(echo)
    await server.start()
    port = server.port
    socks = []
    for _ in range(50):  # connected, though the event loop has not had its turn
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(GET + b"\r\n")
        socks.append(sock)
    await server.drain(15)
    for sock in socks:
        sock.settimeout(15)
        got = sock.recv(65536)
        assert got.startswith(b"HTTP/1.1 200 OK"), got
        assert b"connection: close" in got
        sock.close()


async def test_a_connection_in_use_gets_its_next_answer_from_a_server_that_stops() -> None:
    async with serving(echo, grace_s=5.0, linger_s=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET + b"\r\n")
        assert b"connection" not in await reader.readuntil(b"\r\n\r\n")
        draining = asyncio.create_task(server.drain(15))
        await until(lambda: server.draining)
        writer.write(GET + b"\r\n")
        async with asyncio.timeout(4):
            assert b"connection: close" in await reader.read()
            await draining
        writer.close()
