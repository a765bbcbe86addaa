"""Servers that share a port: one of them stops, and no client is reset."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from penstock.net.server import Reply, Request, Server
from tests.net.loops import on_both_loops

ASK = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def echo(_request: Request, reply: Reply) -> None:
    reply.send(200, [], b"ok")


class Callers:
    """Clients in threads of their own, each with a new connection for each request, until told to stop."""

    def __init__(self, port: int, count: int) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=20) as sock:
                    sock.sendall(ASK)
                    got = b""
                    while piece := sock.recv(4096):
                        got += piece
            except OSError as error:
                self.failures.append(repr(error))
                continue
            if got.endswith(b"\r\n\r\nok"):
                self.answered += 1
            else:
                self.failures.append(repr(got))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@on_both_loops
async def test_nobody_is_reset_when_one_of_two_stops() -> None:
    stays = Server(echo)
    await stays.start(reuse_port=True)
    callers = Callers(stays.port, 6)
    try:
        for _ in range(1):
            leaves = Server(echo)
            await leaves.start(port=stays.port, reuse_port=True)
            seen = callers.answered
            while callers.answered < seen + 100:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(20):
                await leaves.drain(60)
        seen = callers.answered
        while callers.answered < seen + 50:
            await asyncio.sleep(0.01)
    finally:
        await asyncio.to_thread(callers.end)
        await stays.drain(1)
    assert callers.failures == []


@on_both_loops
async def test_who_had_connected_is_served_and_who_comes_later_finds_another() -> None:
    stays, leaves = Server(echo), Server(echo)
    await stays.start(reuse_port=True)
    await leaves.start(port=stays.port, reuse_port=True)
    socks = []
    for _ in range(40):  # about half of them wait at the one that stops, which has not had its turn
        sock = socket.create_connection(("127.0.0.1", stays.port))
        sock.sendall(ASK)
        socks.append(sock)
    draining = asyncio.create_task(leaves.drain(60))
    began = time.monotonic()
    for sock in socks:
        sock.setblocking(False)
        async with asyncio.timeout(20):
            assert (await asyncio.get_running_loop().sock_recv(sock, 4096)).startswith(b"HTTP/1.1 200")
        sock.close()
    await draining
    assert time.monotonic() - began < 60
    await stays.drain(1)
