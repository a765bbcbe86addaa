"""A gateway that answers as ours does, without a model: a real server that can be told to refuse, to break off, or to stall."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "psk-demo-key-of-the-gateway"
WORDS = ["You ", "can ", "follow ", "order ", "4471902 ", "under ", "My orders."]
HEADERS = {
    "x-penstock-request-id": "req_01hvabcdefghjkmnpqrstvwxyz",
    "x-penstock-version": "support-bot:v1.1.0",
    "x-penstock-digest": "sha256:" + "ab" * 32,
    "x-penstock-cache": "miss",
}


class FakeGateway:
    """`seen` are the bodies that came; `left` is set when a client went before the end."""

    def __init__(self) -> None:
        self.seen: list[dict] = []
        self.left = threading.Event()
        self.app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _refused(401, "This key is not known.", "invalid_api_key")
        return JSONResponse({"object": "list", "data": [{"id": "support-bot", "object": "model"}]})

    async def _chat(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _refused(401, "This key is not known.", "invalid_api_key")
        body = await request.json()
        self.seen.append(body)
        text = body["messages"][-1]["content"]
        if text == "refuse":
            return _refused(429, "Over the limit of 5 requests a minute: try again in 12 s.", "rate_limit_exceeded")
        return StreamingResponse(self._answer(text), media_type="text/event-stream", headers=HEADERS)

    async def _answer(self, text: str) -> AsyncIterator[bytes]:
        try:
            for word in WORDS if text != "hostile" else ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>"]:
                yield _chunk({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
                await asyncio.sleep(0.01)
                if text == "break":
                    yield _chunk({"error": {"message": "The engine broke off.", "code": "upstream_failed"}})
                    return
                if text == "stall":
                    await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.left.set()
            raise
        yield _chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield _chunk({"choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 7, "total_tokens": 28}})
        yield b"data: [DONE]\n\n"


def _chunk(value: dict) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _refused(status: int, message: str, code: str) -> Response:
    return JSONResponse(
        {"error": {"message": message, "type": "x", "param": None, "code": code}}, status_code=status, headers=HEADERS
    )
