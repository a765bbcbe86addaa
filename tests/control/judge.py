"""A model that judges, grades and embeds as it is told to: a real server on a real socket, in the gateway's place."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.net.server import Reply, Request, Server
from tests.gateway.mock_upstream import JSON, USAGE, whole

Messages = list[dict[str, str]]


def halves(messages: Messages) -> tuple[str, str]:
    """The two answers that a judge is shown, in their order."""
    first, _, second = messages[1]["content"].partition("Answer A:\n")[2].partition("\n\nAnswer B:\n")
    return first, second


def fair(messages: Messages) -> str:
    """Prefers the longer answer, wherever it stands."""
    first, second = halves(messages)
    return "C" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


def biased(_messages: Messages) -> str:
    """Prefers what stands first, whatever it says."""
    return "A"


class Judge:
    """`says` makes the reply; `statuses` are given out first, one a call, then `status`; `gate`, if it is there, is waited for."""

    def __init__(self, says: Callable[[Messages], str] = fair) -> None:
        self.says = says
        self.asked: list[dict[str, Any]] = []
        self.keys: list[bytes] = []
        self.statuses: list[int] = []
        self.status = 200
        self.retry_after = b""
        self.gate: asyncio.Event | None = None
        self.hangs = False
        self.running = 0
        self.most_running = 0
        self.server = Server(self._handle)

    async def start(self) -> str:
        await self.server.start()
        return f"http://127.0.0.1:{self.server.port}"

    async def stop(self) -> None:
        await self.server.drain(0.1)

    async def _handle(self, request: Request, reply: Reply) -> None:
        body = msgspec.json.decode(request.body)
        self.asked.append(body)
        self.keys.append(request.headers.get(b"authorization", b""))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.hangs:
                await asyncio.Event().wait()
            if self.gate is not None:
                await self.gate.wait()
            status = self.statuses.pop(0) if self.statuses else self.status
            if status != 200:
                told = msgspec.json.encode({"error": {"code": "told_so", "message": f"{status}, as told."}})
                head = [*JSON, (b"retry-after", self.retry_after)] if self.retry_after else JSON
                reply.send(status, head, told)
            elif "input" in body:
                reply.send(200, JSON, self._vectors(body["input"]))
            else:
                reply.send(200, JSON, whole(self.says(body["messages"])))
        finally:
            self.running -= 1

    def _vectors(self, texts: list[str]) -> bytes:
        """How often each of a few letters is in each text; told in the wrong order."""
        vectors = [[float(text.count(letter)) for letter in "abcdefgh"] for text in texts]
        data = [{"index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        return msgspec.json.encode({"object": "list", "data": data[::-1], "usage": USAGE})
