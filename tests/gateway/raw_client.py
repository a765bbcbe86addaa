"""A client on raw sockets: what the gateway sends, byte by byte, and when the connection ends."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from tests.gateway.house import KEY


class Got(NamedTuple):
    """What came until the connection ended or the reply was whole."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes  # decoded from chunks
    whole: bool  # ended as HTTP says

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        return found


def chat(text: str, *, stream: bool = False, key: str = KEY, **fields: Any) -> bytes:
    """A chat request's bytes."""
    body = {"model": "mock", "messages": [{"role": "user", "content": text}], "stream": stream, **fields}
    return post("/v1/chat/completions", msgspec.json.encode(body), key=key)


def post(path: str, body: bytes, *, key: str = KEY, more: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
        % (path.encode(), key.encode(), more, len(body), body)
    )


async def read_reply(
    reader: asyncio.StreamReader,
    timeout_s: float = 20.0,
    *,
    head_only: bool = False,
    heard: asyncio.Event | None = None,
) -> Got:
    """One reply; `heard` is set when its head is there."""
    async with asyncio.timeout(timeout_s):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as cut:
            return Got(0, {}, cut.partial, False)
        first, *lines = head[:-4].split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        status = int(first.split(b" ")[1])
        if heard is not None:
            heard.set()
        if head_only:
            return Got(status, headers, b"", True)
        try:
            if b"content-length" in headers:
                return Got(status, headers, await reader.readexactly(int(headers[b"content-length"])), True)
        except asyncio.IncompleteReadError as cut:
            return Got(status, headers, cut.partial, False)
        body = bytearray()
        try:
            while True:
                size = int(await reader.readuntil(b"\r\n"), 16)
                data = await reader.readexactly(size + 2)
                if size == 0:
                    return Got(status, headers, bytes(body), True)
                body += data[:-2]
        except (asyncio.IncompleteReadError, ConnectionError):
            return Got(status, headers, bytes(body), False)


async def ask(port: int, request: bytes, timeout_s: float = 20.0, *, heard: asyncio.Event | None = None) -> Got:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await read_reply(reader, timeout_s, heard=heard)
    finally:
        writer.close()
