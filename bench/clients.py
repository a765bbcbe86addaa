"""Thousands of clients in one process: a protocol each, no streams, no tasks."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

BODY = (Path(__file__).parent / "body1k.json").read_bytes()
STREAM_BODY = (Path(__file__).parent / "body1k_stream.json").read_bytes()


def chat(headers: tuple[str, ...], body: bytes = BODY) -> bytes:
    """A chat request as it is sent."""
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{lines}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Caller(asyncio.Protocol):
    """One connection, with one request at a time.

    Attributes:
        lost: the server has closed it.
        reply: what has come of the last reply.
    """

    __slots__ = ("_done", "_expects", "lost", "reply", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._done: asyncio.Future[bytes] | None = None
        self._expects = -1
        self.lost = False
        self.reply = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._done is not None and not self._done.done():
            self._done.set_result(self.reply)

    def data_received(self, data: bytes) -> None:
        self.reply += data
        if self._done is not None and not self._done.done() and self._whole():
            self._done.set_result(self.reply)

    def _whole(self) -> bool:
        reply = self.reply
        if self._expects < 0:
            end = reply.find(b"\r\n\r\n")
            if end < 0:
                return False
            at = reply.find(b"content-length: ", 0, end)
            self._expects = end + 4 + int(reply[at + 16 : reply.find(b"\r\n", at)]) if at >= 0 else 0
        return len(reply) >= self._expects if self._expects else reply.endswith(b"0\r\n\r\n")

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Sends `request`; done with the whole reply, or with what came of it before the end of the connection."""
        self.reply = b""
        self._expects = -1
        self._done = asyncio.get_running_loop().create_future()
        if self.transport is None or self.lost:
            self._done.set_result(b"")
        else:
            self.transport.write(request)
        return self._done

    def heard(self) -> asyncio.Future[bytes]:
        """Done when the server closes; for one that is not asked anything."""
        self._done = asyncio.get_running_loop().create_future()
        self._expects = 1 << 62
        if self.lost:
            self._done.set_result(self.reply)
        return self._done


async def connect(port: int, context: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> Caller:
    """A connection from the address `source`."""
    _, caller = await asyncio.get_running_loop().create_connection(
        Caller, "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None, local_addr=(source, 0)
    )
    return caller


async def connect_many(
    port: int, count: int, context: ssl.SSLContext | None = None, at_once: int = 100
) -> list[Caller]:
    """`count` connections, `at_once` of them at a time."""
    found: list[Caller] = []
    while len(found) < count:
        batch = min(at_once, count - len(found))
        found += await asyncio.gather(*[connect(port, context) for _ in range(batch)])
    return found


def resident_kib(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} tells no memory")


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def pin(core: int) -> None:
    """Keeps this process on one core, away from what it measures."""
    os.sched_setaffinity(0, {core})
