"""TLS: what holds over a plain connection holds over a sealed one, and what is only of TLS."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.core.errors import BadRequest
from penstock.net.certificate import Certificate
from penstock.net.server import Handler, Reply, Request, Server, ServerLimits
from tests.net.certificates import make_certificate, trusting
from tests.net.loops import on_both_loops
from tests.net.smuggling import BEHIND, REFUSED
from tests.net.sockets import until

PLAIN = [(b"content-type", b"text/plain")]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CLOSE = b"Connection: close\r\n"


class Sealed:
    """A server over TLS, and its clients."""

    def __init__(self, server: Server, certificate: Certificate, folder: Path) -> None:
        self.server = server
        self.certificate = certificate
        self.folder = folder
        self.port = server.port

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context or trusting(self.folder / "cert.pem"))

    async def exchange(self, data: bytes) -> bytes:
        reader, writer = await self.connect()
        try:
            writer.write(data)
            async with asyncio.timeout(15):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def sealing(folder: Path, handler: Handler, **limits: float) -> AsyncIterator[Sealed]:
    certificate = Certificate(*make_certificate(folder))
    server = Server(handler, limits=ServerLimits(**limits))  # type: ignore[arg-type]
    await server.start(certificate=certificate)
    try:
        yield Sealed(server, certificate, folder)
    finally:
        await server.drain(0.1)


async def echo(request: Request, reply: Reply) -> None:
    reply.send(200, PLAIN, b"%b %b" % (request.path.encode(), request.body))


@on_both_loops
async def test_keep_alive_pipelining_and_large_bodies(tmp_path: Path) -> None:
    async with sealing(tmp_path, echo) as sealed:
        reader, writer = await sealed.connect()
        told = writer.get_extra_info("ssl_object")
        assert told.selected_alpn_protocol() is None
        assert told.version() == "TLSv1.3"
        for _ in range(3):
            writer.write(GET + b"\r\n")
            assert (await reader.readuntil(b"/ ")).startswith(b"HTTP/1.1 200 OK")
        body = os.urandom(300_000)
        many = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(50))
        writer.write(many + b"POST /big HTTP/1.1\r\nHost: a\r\n%bContent-Length: 300000\r\n\r\n%b" % (CLOSE, body))
        async with asyncio.timeout(15):
            got = await reader.read()
        assert got.count(b"HTTP/1.1 200 OK") == 51
        assert got.index(b"/7 ") < got.index(b"/48 ")
        assert got.endswith(b"/big " + body)
        writer.close()


@on_both_loops
async def test_the_protocol_is_agreed_upon(tmp_path: Path) -> None:
    async with sealing(tmp_path, echo) as sealed:
        context = trusting(tmp_path / "cert.pem")
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await sealed.connect(context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()


@on_both_loops
async def test_versions_before_1_2_are_refused(tmp_path: Path) -> None:
    async with sealing(tmp_path, echo) as sealed:
        context = trusting(tmp_path / "cert.pem")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await sealed.connect(context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.close()
        hello = (  # a ClientHello of TLS 1.1 with one cipher suite of its time
            b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x02" + bytes(32) + b"\x00\x00\x04\xc0\x0a\x00\xff\x01\x00"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", sealed.port)
        writer.write(hello)
        async with asyncio.timeout(15):
            got = await reader.read()
        assert got[:1] == b"\x15", "an alert"
        writer.close()
        assert sealed.server.tls_failures == 1


@on_both_loops
@pytest.mark.parametrize("split", [1, 5, 100])
async def test_a_handshake_and_requests_in_any_pieces(tmp_path: Path, split: int) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    async with sealing(tmp_path, echo) as sealed:
        client = trusting(tmp_path / "cert.pem").wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("127.0.0.1", sealed.port)
        got = b""
        asked = False
        async with asyncio.timeout(15):
            while not got.endswith(b"/ "):
                with contextlib.suppress(ssl.SSLWantReadError):
                    if not asked:
                        client.do_handshake()
                        client.write(GET + b"\r\n")
                        asked = True
                    got += client.read()
                data = outgoing.read()
                for start in range(0, len(data), split):
                    writer.write(data[start : start + split])
                    await writer.drain()
                    await asyncio.sleep(0)
                if not got.endswith(b"/ "):
                    incoming.write(await reader.read(65536))
        writer.close()


@on_both_loops
async def test_streams_go_at_the_clients_speed(tmp_path: Path) -> None:
    written = 0

    async def pour(_request: Request, reply: Reply) -> None:
        nonlocal written
        reply.start(200, PLAIN)
        for _ in range(400):
            reply.write(bytes(65536))
            written += 65536
            await reply.drain()
        reply.end()

    async with sealing(tmp_path, pour) as sealed:
        bare = socket.create_connection(("127.0.0.1", sealed.port), timeout=30)
        context = trusting(tmp_path / "cert.pem")
        with await asyncio.to_thread(context.wrap_socket, bare, server_hostname="localhost") as sock:
            await asyncio.to_thread(sock.sendall, GET + CLOSE + b"\r\n")
            seen = -1
            while seen != written or not written:
                seen = written
                await asyncio.sleep(0.2)
            assert written < 400 * 65536
            got = await asyncio.to_thread(_all_of, sock)
        assert len(got) > 400 * 65536
        assert got.endswith(b"0\r\n\r\n")


def _all_of(sock: ssl.SSLSocket) -> bytes:
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


@on_both_loops
@pytest.mark.parametrize("how", ["close", "abort", "half"])
async def test_a_client_that_leaves_cancels_the_handler(tmp_path: Path, how: str) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_request: Request, reply: Reply) -> None:
        reply.start(200, PLAIN)
        reply.write(b"x")
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with sealing(tmp_path, hang) as sealed:
        _, writer = await sealed.connect()
        writer.write(GET + b"\r\n")
        await began.wait()
        if how == "close":
            writer.close()
        elif how == "abort":
            writer.transport.abort()
        else:
            sock = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
            sock.shutdown(socket.SHUT_WR)
            sock.close()
        async with asyncio.timeout(15):
            await cancelled.wait()
        await until(lambda: sealed.server.connections == 0)
        writer.close()


@on_both_loops
async def test_clients_that_never_shake_hands_count_and_are_let_go(tmp_path: Path) -> None:
    async with sealing(tmp_path, echo, header_timeout_s=0.5, max_connections=3) as sealed:
        held = [await asyncio.open_connection("127.0.0.1", sealed.port) for _ in range(3)]
        held[1][1].write(b"\x16\x03\x01")
        await until(lambda: sealed.server.connections == 3)
        began = time.monotonic()
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await sealed.connect()
        assert time.monotonic() - began < 30, "one too many is refused at once"
        assert sealed.server.refusals == {503: 1}
        await until(lambda: sealed.server.connections == 0)
        assert (await sealed.exchange(GET + CLOSE + b"\r\n")).startswith(b"HTTP/1.1 200 OK")
        for _, writer in held:
            writer.close()


@on_both_loops
async def test_what_is_no_tls_is_told_so(tmp_path: Path) -> None:
    async with sealing(tmp_path, echo) as sealed:
        reader, writer = await asyncio.open_connection("127.0.0.1", sealed.port)
        writer.write(GET + b"\r\n")
        got = await reader.read()
        assert got.startswith(b"HTTP/1.1 400 ")
        head, _, body = got.partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in head
        assert b"https://" in body
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", sealed.port)
        writer.write(b"\x16\x03\x01" + bytes(200))
        async with asyncio.timeout(15):
            await reader.read()
        writer.close()
        await until(lambda: sealed.server.connections == 0)
        assert sealed.server.tls_failures == 2


@on_both_loops
async def test_what_breaks_off_in_the_middle_of_a_request_closes(tmp_path: Path) -> None:
    async with sealing(tmp_path, echo) as sealed:
        reader, writer = await sealed.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        await until(lambda: any(one._phase == 2 for one in sealed.server._connections))
        sock = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        sock.setblocking(True)
        sock.send(b"this is no record at all, and long enough to be seen as such")
        sock.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            async with asyncio.timeout(15):
                await reader.read()
        await until(lambda: sealed.server.connections == 0)
        assert sealed.server.tls_failures == 1
        writer.close()


@on_both_loops
@pytest.mark.parametrize("name", ["two lengths", "length and chunks", "bare LF", "no end at all", "a fragment"])
async def test_refusals_are_read_over_tls_too(tmp_path: Path, name: str) -> None:
    async with sealing(tmp_path, echo, linger_s=0.5) as sealed:
        got = await sealed.exchange(REFUSED[name] + BEHIND)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in got
        await until(lambda: sealed.server.connections == 0)


@on_both_loops
async def test_a_server_that_stops_answers_first(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(_request: Request, reply: Reply) -> None:
        await go.wait()
        reply.send(200, PLAIN, b"done")

    async with sealing(tmp_path, slow) as sealed:
        reader, writer = await sealed.connect()
        idle, idle_writer = await sealed.connect()
        writer.write(GET + b"\r\n")
        await until(lambda: sealed.server.connections == 2 and any(one.busy for one in sealed.server._connections))
        draining = asyncio.create_task(sealed.server.drain(15))
        async with asyncio.timeout(15):
            assert await idle.read() == b""
            go.set()
            got = await reader.read()
            await draining
        assert b"connection: close" in got
        assert got.endswith(b"done")
        writer.close()
        idle_writer.close()


@on_both_loops
async def test_a_renewed_certificate_is_shown_to_who_comes_next(tmp_path: Path) -> None:
    async with sealing(tmp_path, echo) as sealed:
        reader, writer = await sealed.connect()
        first = sealed.certificate.expires
        assert not sealed.certificate.renew()
        make_certificate(tmp_path, serial=2, days=90)
        assert sealed.certificate.renew()
        assert sealed.certificate.expires > first + 80 * 86400
        _, second = await sealed.connect()
        assert second.get_extra_info("ssl_object").getpeercert()["serialNumber"] == "02"
        writer.write(GET + b"\r\n")
        assert (await reader.readuntil(b"/ ")).startswith(b"HTTP/1.1 200"), "who is there already goes on"
        for one in (writer, second):
            one.close()


def test_half_a_renewal_changes_nothing_until_it_is_whole(tmp_path: Path) -> None:
    certificate = Certificate(*make_certificate(tmp_path))
    context = certificate.context
    old_key = (tmp_path / "key.pem").read_bytes()
    make_certificate(tmp_path, serial=2)
    new_key = (tmp_path / "key.pem").read_bytes()
    (tmp_path / "key.pem").write_bytes(old_key)
    assert not certificate.renew()
    assert certificate.failures == 1
    assert not certificate.renew(), "the same files are not tried again"
    assert certificate.failures == 1
    assert certificate.context is context
    (tmp_path / "key.pem").write_bytes(new_key)
    assert certificate.renew()
    assert certificate.context is not context
    (tmp_path / "key.pem").unlink()
    assert not certificate.renew()
    assert certificate.failures == 2


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path / "good")
    with pytest.raises(BadRequest, match=r"nowhere\.pem cannot be read"):
        Certificate(tmp_path / "nowhere.pem", key)
    with pytest.raises(BadRequest, match="cannot be read"):
        Certificate(cert, tmp_path / "nowhere.pem")
    with pytest.raises(BadRequest, match="no certificate and its key"):
        Certificate(key, cert)
    _, other = make_certificate(tmp_path / "other")
    with pytest.raises(BadRequest, match="no certificate and its key"):
        Certificate(cert, other)
    with pytest.raises(BadRequest, match="encrypted"):
        Certificate(*make_certificate(tmp_path / "sealed", password=b"secret"))


@on_both_loops
async def test_an_idle_connection_is_small(tmp_path: Path) -> None:
    """Not the figure itself, which `make bench-connections` prints: that nothing large is kept for each."""
    async with sealing(tmp_path, echo) as sealed:
        context = trusting(tmp_path / "cert.pem")
        held = [await sealed.connect(context) for _ in range(20)]
        gc.collect()
        for one in sealed.server._connections:
            assert one._transport is not None
            assert one._transport.get_write_buffer_size() == 0
            assert not one._body
        for _, writer in held:
            writer.close()
