"""An engine that answers, and misbehaves when the last message tells it to: a real server on real sockets.

The last message's content is what it says back, word by word; one that begins with `!` names a fault.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from penstock.net.server import Reply, Request, Server

JSON = [(b"content-type", b"application/json")]
SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]
USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}


def chunk(text: str | None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def usage_chunk(usage: dict[str, int]) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "mock",
        "choices": [],
        "usage": usage,
    }
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def whole(text: str, usage: Any = USAGE) -> bytes:
    return msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "mock",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": usage,
        }
    )


def calls_of(text: str) -> list[dict[str, Any]]:
    """`!tool NAME ARGUMENTS` as the deltas of one call."""
    _, name, arguments = text.split(" ", 2)
    half = len(arguments) // 2
    head = {"index": 0, "id": "call_7", "type": "function", "function": {"name": name, "arguments": ""}}
    return [head, *({"index": 0, "function": {"arguments": part}} for part in (arguments[:half], arguments[half:]))]


def called(text: str) -> bytes:
    """`!tool NAME ARGUMENTS` as a whole answer."""
    _, name, arguments = text.split(" ", 2)
    call = {"id": "call_7", "type": "function", "function": {"name": name, "arguments": arguments}}
    answer = msgspec.json.decode(whole("I look. "))
    answer["choices"][0]["message"]["tool_calls"] = [call]
    answer["choices"][0]["finish_reason"] = "tool_calls"
    return msgspec.json.encode(answer)


def embedded(given: Any) -> bytes:
    """As many vectors as there are inputs, each telling which one it is of."""
    count = len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1
    data = [{"object": "embedding", "index": index, "embedding": [float(index), 0.5]} for index in range(count)]
    return msgspec.json.encode(
        {"object": "list", "model": "mock", "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    )


TALK = 1000  # tokens that `!talk` says if nothing stops it


def talked(body: dict[str, Any]) -> bytes:
    """A long answer, as far as the request lets it come."""
    most = body.get("max_completion_tokens") or body.get("max_tokens") or TALK
    answer = msgspec.json.decode(whole("and so on", {"prompt_tokens": 5, "completion_tokens": min(most, TALK)}))
    answer["choices"][0]["finish_reason"] = "length" if most < TALK else "stop"
    return msgspec.json.encode(answer)


class MockUpstream:
    """One replica. `asked` are the bodies that came, `left` counts requests whose asker went away before the end."""

    def __init__(self, *, pause_s: float = 0.0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []  # byte for byte
        self.paths: list[str] = []
        self.heads: list[dict[bytes, bytes]] = []
        self.left = 0
        self.always: str | None = None  # a fault, or "" for none, whatever the message says
        self.probed = 0
        self.health = 200  # what probes are told
        self.running = 0
        self.written = 0
        self.pause_s = pause_s
        self.gate = asyncio.Event()  # `!wait` goes on when it is set
        self.server = Server(self._handle)

    async def start(self) -> str:
        await self.server.start()
        return self.url

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def stop(self) -> None:
        await self.server.drain(0.1)

    async def _handle(self, request: Request, reply: Reply) -> None:
        if request.method == "GET":
            self.probed += 1
            reply.send(self.health, JSON, b"{}")
            return
        body = msgspec.json.decode(request.body)
        self.asked.append(body)
        self.bodies.append(request.body)
        self.paths.append(request.path)
        self.heads.append(dict(request.headers))
        self.running += 1
        try:
            await self._answer(body, reply)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.running -= 1

    async def _answer(self, body: dict[str, Any], reply: Reply) -> None:
        if "input" in body:
            given = body["input"]
            text = given if isinstance(given, str) else str(given[0])
        elif "messages" in body:
            text = body["messages"][-1]["content"]
            text = text if isinstance(text, str) else text[-1]["text"]
        else:
            text = body["prompt"]
        fault = text[1:].split(" ")[0] if text.startswith("!") else ""
        if self.always is not None:
            fault = self.always.removeprefix("!")
        if fault and await self._before(fault, reply):
            return
        if "input" in body:
            reply.send(200, JSON, embedded(body["input"]))
        elif fault == "talk":
            reply.send(200, JSON, talked(body))
        elif not body.get("stream"):
            await self._whole(fault, text, reply)
        else:
            await self._stream(fault, text, body, reply)

    async def _before(self, fault: str, reply: Reply) -> bool:
        if fault in {"wait", "talk"}:
            await self.gate.wait()
        elif fault == "hang":
            await asyncio.Event().wait()
        elif fault == "reset":
            reply._connection.kill()
            return True
        elif fault == "garbage":
            reply._connection.transport_write(b"hello, I speak no HTTP\r\n\r\n")
            reply.finished = True
            return True
        elif fault.startswith("status"):
            error = {
                "error": {"message": "told so", "type": "x", "param": "messages", "code": "context_length_exceeded"}
            }
            reply.send(int(fault[6:]), JSON, msgspec.json.encode(error))
            return True
        return False

    async def _whole(self, fault: str, text: str, reply: Reply) -> None:
        answer = whole(text)
        if fault == "truncate":
            reply._connection.transport_write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n" + answer[:50]
            )
            reply.abort()
        elif fault == "stall":
            reply._connection.transport_write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n" + answer[:50]
            )
            await asyncio.Event().wait()
        elif fault == "nojson":
            reply.send(200, JSON, b"<html>no</html>")
        elif fault == "nochoices":
            reply.send(200, JSON, b'{"object":"chat.completion"}')
        elif fault == "lies":
            reply.send(200, JSON, whole(text, {"prompt_tokens": -5, "completion_tokens": 10**15}))
        elif fault == "tool":
            reply.send(200, JSON, called(text))
        elif fault == "nousage":
            reply.send(200, JSON, whole(text, None))
        else:
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            reply.send(200, JSON, answer)

    async def _stream(self, fault: str, text: str, body: dict[str, Any], reply: Reply) -> None:
        if fault == "notsse":
            reply.send(200, JSON, whole(text))
            return
        reply.start(200, SSE)
        if fault == "flood":
            await self._flood(reply)
            return
        if fault == "tool":
            self._call(text, body, reply)
            return
        events = [chunk("")]
        events += [chunk(word if index == 0 else " " + word) for index, word in enumerate(text.split(" "))]
        for index, event in enumerate(events):
            if index == 2 and await self._middle(fault, event, reply):
                return
            reply.write(event)
            await reply.drain()
            await asyncio.sleep(self.pause_s)
        if fault == "nodone":
            reply.end()
            return
        reply.write(chunk(None, "stop"))
        if (body.get("stream_options") or {}).get("include_usage"):
            reply.write(usage_chunk(USAGE))
        await reply.drain()
        reply.end(b"data: [DONE]\n\n")

    def _call(self, text: str, body: dict[str, Any], reply: Reply) -> None:
        first, *pieces = calls_of(text)
        reply.write(chunk("I look. "))
        for piece in (first, *pieces):
            reply.write(chunk(None).replace(b'"delta":{}', b'"delta":' + msgspec.json.encode({"tool_calls": [piece]})))
        reply.write(chunk(None, "tool_calls"))
        if (body.get("stream_options") or {}).get("include_usage"):
            reply.write(usage_chunk(USAGE))
        reply.end(b"data: [DONE]\n\n")

    async def _middle(self, fault: str, event: bytes, reply: Reply) -> bool:
        if fault == "truncate":
            reply.write(event[:20])
            reply.abort()
        elif fault == "stall":
            await asyncio.Event().wait()
        elif fault == "error":
            reply.end(b'data: {"error":{"message":"out of memory","type":"server_error"}}\n\ndata: [DONE]\n\n')
        elif fault == "nojson":
            reply.write(b'data: {"usage": oops\n\n')
            reply.end(b"data: [DONE]\n\n")
        else:
            return False
        return True

    async def _flood(self, reply: Reply) -> None:
        event = chunk("x" * 4000)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            reply.write(event)
            self.written += len(event)
            await reply.drain()
            await asyncio.sleep(0)
