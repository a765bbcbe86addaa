"""A server that makes vectors, which are as near to each other as the words of the texts tell it."""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from penstock.core.snapshot import Pool, Replica
from penstock.net.server import Reply, Request, Server
from tests.gateway.mock_upstream import JSON


def vector(text: str) -> list[float]:
    """All texts are one direction; with "weather" another one; with "almost" between them, at a cosine of 0.8."""
    if "weather" in text:
        return [0.0, 1.0, 0.0, 0.0]
    return [0.8, 0.6, 0.0, 0.0] if "almost" in text else [1.0, 0.0, 0.0, 0.0]


class Vectors:
    """`asked` are the texts that came. `fault` is none, or: late, status, garbage, nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fault = ""
        self.left = 0
        self.server = Server(self._handle)

    @property
    def pool(self) -> Pool:
        url = f"http://127.0.0.1:{self.server.port}"
        return Pool(name="vectors", replicas=(Replica(id="v0", url=url),), model="words")

    async def _handle(self, request: Request, reply: Reply) -> None:
        if request.method == "GET":
            reply.send(200, JSON, b"{}")
            return
        body = msgspec.json.decode(request.body)
        assert (request.path, body["model"]) == ("/v1/embeddings", "words")
        self.asked.append(body["input"])
        if self.fault == "late":
            try:
                await asyncio.Event().wait()
            finally:
                self.left += 1
        packed = base64.b64encode(array("f", vector(body["input"])).tobytes()).decode()
        data = [] if self.fault == "nothing" else [{"object": "embedding", "index": 0, "embedding": packed}]
        answer = b"<p>" if self.fault == "garbage" else msgspec.json.encode({"object": "list", "data": data})
        reply.send(500 if self.fault == "status" else 200, JSON, answer)


@asynccontextmanager
async def vectors() -> AsyncIterator[Vectors]:
    """One such server."""
    server = Vectors()
    await server.server.start()
    try:
        yield server
    finally:
        await server.server.drain(0.1)
