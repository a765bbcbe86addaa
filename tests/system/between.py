"""A wire between gateway and engine that passes every byte on and keeps the requests: what the one really asked of the other."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Between:
    """Listens, and passes on to the port `behind`.

    Attributes:
        asked: the JSON bodies that came, with their heads.
        budget: bytes of answers that a connection gets at least, each some others; then nothing comes, until the server ends.
        held: connections that have had them.
    """

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.port = 0
        self.budget = 0  # 0: as many as there are
        self.cut = 0
        self.held = 0
        self.asked: list[tuple[bytes, dict[str, Any]]] = []

    async def start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self.behind)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._ask(reader, there[1])),
            asyncio.create_task(self._answer(there[0], writer)),
        ]
        with suppress(asyncio.CancelledError):  # the test is over
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, there[1]):
            end.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = b""
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                heard = self._hear(heard + data)
                await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = 10**12
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.budget and left > 10**6:
                    self.cut += 1
                    left = self.budget + self.cut * 97 % 800
                writer.write(data[: max(0, left)])
                left -= len(data)
                self.held += left <= 0 < left + len(data)
                await writer.drain()

    def _hear(self, data: bytes) -> bytes:
        while True:
            head, blank, rest = data.partition(b"\r\n\r\n")
            length = _LENGTH.search(head + b"\r\n")
            size = int(length[1]) if length else 0
            if not blank or len(rest) < size:
                return data
            if size:
                self.asked.append((head, json.loads(rest[:size])))
            data = rest[size:]


@contextmanager
def between(ports: list[int]) -> Iterator[list[Between]]:
    """A wire to each of `ports`, in a thread of their own."""
    wires = [Between(port) for port in ports]
    came, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        for wire in wires:
            await wire.start()
        came.set()
        await stop.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert came.wait(10)
    try:
        yield wires
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
