"""An engine on a raw socket that follows a script, byte by byte: whatever an HTTP server must not do, it can.

A script is a tuple of steps, for the first request that comes; every later one is answered as it should be. `reused` counts requests
that came over a connection on which the script had been followed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Literal, NamedTuple

import msgspec

from tests.gateway.mock_upstream import USAGE, chunk, usage_chunk, whole


class Drip(NamedTuple):
    """Byte by byte, one every `every_s`."""

    data: bytes
    every_s: float


class Flood(NamedTuple):
    """The same again and again, for as long as somebody reads."""

    data: bytes


Step = bytes | Drip | Flood | Literal["reset", "close", "stall", "heard"]
Script = tuple[Step, ...]

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWER = whole("hello world")
EVENTS = (chunk("hello"), chunk(" world"))
END = chunk(None, "stop") + usage_chunk(USAGE) + b"data: [DONE]\n\n"


def sized(body: bytes, head: bytes = JSON) -> bytes:
    """A whole answer."""
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def framed(*pieces: bytes) -> bytes:
    """Chunks, without the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def status(code: int, more: bytes = b"") -> bytes:
    """An error in OpenAI's shape."""
    body = b'{"error":{"message":"told so","type":"x","param":"messages","code":"context_length_exceeded"}}'
    return sized(body, b"HTTP/1.1 %d Told\r\ncontent-type: application/json\r\n%b" % (code, more))


class BadUpstream:
    """One replica."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked = 0
        self.running = 0
        self.reused = 0
        self.heard = asyncio.Event()  # the client has seen the answer begin
        self._server: asyncio.Server | None = None
        self._held: list[socket.socket] = []
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
        self._url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def refuse(self) -> None:
        """An address at which nothing listens, and that nobody else is given meanwhile."""
        taken = socket.socket()
        taken.bind(("127.0.0.1", 0))
        self._held.append(taken)
        self._url = f"http://127.0.0.1:{taken.getsockname()[1]}"

    def be_deaf(self) -> None:
        """An address that takes no connection and refuses none: its backlog is full."""
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        self._held.append(listening)
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
            self._held.append(waiting)
        self._url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    async def stop(self) -> None:
        for one in self._held:
            one.close()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoilt = False
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):
                    writer.write(sized(b"{}"))
                    continue
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                body = msgspec.json.decode(await reader.readexactly(length))
                self.asked += 1
                self.reused += spoilt
                if self.asked > 1:
                    self._answer(writer, stream=bool(body.get("stream")))
                    continue
                spoilt = True
                await self._follow(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway has left
        finally:
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, *, stream: bool) -> None:
        if stream:
            writer.write(SSE + framed(*EVENTS, END) + b"0\r\n\r\n")
        else:
            writer.write(sized(ANSWER))

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.running += 1
        gone = asyncio.ensure_future(reader.read(1))  # nothing is sent meanwhile: it returns when the other side closes
        playing = asyncio.ensure_future(self._play(writer, gone))
        try:
            await asyncio.wait((gone, playing), return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()
            if not gone.done():
                gone.cancel()
                await asyncio.wait((gone,))
            elif gone.exception() is not None or not gone.result():
                raise ConnectionError
        finally:
            playing.cancel()
            gone.cancel()
            await asyncio.gather(playing, gone, return_exceptions=True)
            self.running -= 1

    async def _play(self, writer: asyncio.StreamWriter, gone: asyncio.Future[bytes]) -> None:
        for step in self.script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, Drip):
                for index in range(len(step.data)):
                    writer.write(step.data[index : index + 1])
                    await asyncio.sleep(step.every_s)
            elif isinstance(step, Flood):
                while True:
                    writer.write(step.data)
                    await writer.drain()
                    await asyncio.sleep(0)
            elif step == "heard":
                await self.heard.wait()
            elif step == "stall":
                await asyncio.wait((gone,))
            else:
                if step == "reset":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                raise ConnectionError(step)
