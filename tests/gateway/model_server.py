"""A model that says how sure it is: a real server whose tokens have log-probabilities when it is asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from penstock.core.snapshot import Pool, Price, Replica
from penstock.net.server import Reply, Request, Server
from tests.gateway.mock_upstream import JSON, SSE


class ModelServer:
    """Answers `NAME says` and the question's words, one token each: unsure of `hard`, sure of all others.

    `!400` and the like are refused so, `!break` breaks off after three tokens, `!silent` tells no log-probabilities.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[dict[str, Any]] = []
        self.gate: asyncio.Event | None = None  # streams wait for it after their fourth token
        self.server = Server(self._handle)

    def pool(self, **more: Any) -> Pool:
        url = f"http://127.0.0.1:{self.server.port}"
        return Pool(
            name=self.name,
            replicas=(Replica(id=f"{self.name}-0", url=url),),
            version=f"{self.name}:v1.0.0",
            digest=f"sha256:{self.name}",
            model=self.name,
            price=Price(prompt=1.0 if self.name == "small" else 10.0, completion=2.0),
            **more,
        )

    async def _handle(self, request: Request, reply: Reply) -> None:
        body = msgspec.json.decode(request.body)
        self.asked.append(body)
        question = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        fault = question.split(" ")[0][1:] if question.startswith("!") and self.name == "small" else ""
        if fault.isdigit():
            reply.send(int(fault), JSON, b'{"error":{"message":"no"}}')
            return
        tokens = [self.name, "says", *question.split(" ")]
        finish = "length" if len(tokens) > body.get("max_tokens", 1000) else "stop"
        told = bool(body.get("logprobs")) or body.get("logprobs") == 0
        scores = [-3.0 if token == "hard" else -0.01 for token in tokens] if told and fault != "silent" else None
        if not body.get("stream"):
            if fault == "break":
                reply._connection.kill()
                return
            reply.send(200, JSON, msgspec.json.encode(_whole(body, tokens, scores, finish)))
            return
        reply.start(200, SSE)
        for at, token in enumerate(tokens):
            if fault == "break" and at == 3:
                reply.abort()
                return
            if at == 4 and self.gate is not None:
                await self.gate.wait()
            reply.write(_event(token + " ", None if scores is None else scores[at : at + 1]))
            await reply.drain()
        reply.write(_event(None, None, finish))
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": len(tokens)}}
            reply.write(b"data: " + msgspec.json.encode(usage) + b"\n\n")
        reply.end(b"data: [DONE]\n\n")


def _logprobs(scores: list[float] | None) -> Any:
    return None if scores is None else {"content": [{"token": "x", "logprob": score} for score in scores]}


def _whole(body: dict[str, Any], tokens: list[str], scores: list[float] | None, finish: str) -> Any:
    text = " ".join(tokens)
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if "messages" in body:
        choice |= {"message": {"role": "assistant", "content": text}, "logprobs": _logprobs(scores)}
    else:
        choice |= {"text": text, "logprobs": None if scores is None else {"token_logprobs": scores}}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": len(tokens)}}


def _event(text: str | None, scores: list[float] | None, finish: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "logprobs": _logprobs(scores), "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"


@asynccontextmanager
async def models(*names: str) -> AsyncIterator[list[ModelServer]]:
    """One server for each name."""
    servers = [ModelServer(name) for name in names]
    for one in servers:
        await one.server.start()
    try:
        yield servers
    finally:
        for one in servers:
            await one.server.drain(0.1)
