"""A webhook's receiver: a real server that answers as it is told, and keeps what it was sent."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

SECRET = "whsec_" + base64.b64encode(b"a secret of the receiver, thirty").decode()
OTHER = "whsec_" + base64.b64encode(b"the one that was before this one").decode()


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def is_signed_with(self, secret: str) -> bool:
        """By the specification, written down once more."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return wanted in self.headers["webhook-signature"].split(" ")


class Receiver:
    """`answers` maps what a message is about (`TYPE SUBJECT`) to the statuses of its next requests; 0 hangs, -1 breaks off; else 200."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answers: dict[str, list[int]] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            got = Got(path=first.split(" ")[1], headers=headers, body=body)
            self.got.append(got)
            waiting = self.answers.get(f"{got.told['type']} {got.told['data']['subject']}", [])
            status = waiting.pop(0) if waiting else 200
            if status == 0:
                await asyncio.sleep(60)
            if status > 0:
                more = f"location: {self.url}/elsewhere\r\n" if 300 <= status < 400 else ""
                writer.write(f"HTTP/1.1 {status} X\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def delivered(self, *, model: str | None = None) -> list[tuple[str, str]]:
        """Type and subject of what came, in order."""
        data = [got.told for got in self.got]
        return [(one["type"], one["data"]["subject"]) for one in data if model in (None, one["data"]["model"])]


@asynccontextmanager
async def receiving(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a port of its own."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
