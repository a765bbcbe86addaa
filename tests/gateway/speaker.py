"""An engine whose every token is a word, which breaks off where it is told to: in our own dialect, or in vLLM's.

It says the words of the last user message. A token is the number of its word; the end of a word comes with the next event, as the
last bytes of a character do.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from penstock.net.server import Reply, Request, Server
from penstock.wire.resume import CONTINUE, HEADER, MEMBER, TELL, ids_line

Break = Literal["", "reset", "error", "stall", "end", "half", "garbage", "refuse", "done_missing"]
_SSE = [(b"content-type", b"text/event-stream")]
PROMPT = 7  # tokens of every prompt


class Speaker:
    """One replica. `plan` says of each request, in turn, after how many events it breaks off, and how; then it answers whole."""

    def __init__(self, name: str, *, dialect: str = "penstock") -> None:
        self.name = name
        self.dialect = dialect
        self.plan: list[tuple[int, Break]] = []
        self.asked: list[dict[str, Any]] = []
        self.heads: list[dict[bytes, bytes]] = []
        self.server = Server(self._handle)
        self._answers = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def _handle(self, request: Request, reply: Reply) -> None:
        if request.method == "GET":  # a probe
            reply.send(200, [], b"{}")
            return
        body = msgspec.json.decode(request.body)
        self.asked.append(body)
        self.heads.append(dict(request.headers))
        cut, how = self.plan.pop(0) if self.plan else (10**9, "")
        if how == "refuse":
            reply.send(503, [], b"{}")
            return
        mode = request.headers.get(HEADER, b"")
        headers = [*_SSE, (HEADER, mode)] if mode and self.dialect == "penstock" else _SSE
        reply.start(200, headers)
        for number, event in enumerate(self._events(body, mode)):
            if number == cut and await self._break(how, event, reply):
                return
            reply.write(event)
            await reply.drain()
        if how == "done_missing":
            reply.abort()
            return
        reply.end(b"data: [DONE]\n\n")

    async def _break(self, how: str, event: bytes, reply: Reply) -> bool:
        if how == "reset":
            reply.abort()
        elif how == "half":
            reply.write(event[:30])
            reply.abort()
        elif how == "error":
            reply.end(b'data: {"error":{"message":"the pipeline died","type":"server_error"}}\n\n')
        elif how == "stall":
            await asyncio.Event().wait()
        elif how == "end":
            reply.end()
        elif how == "garbage":
            await asyncio.sleep(0.1)  # so that it comes in a read of its own
            reply.end(b'data: {"usage": oops\n\n')
        else:
            return False
        return True

    def _events(self, body: dict[str, Any], mode: bytes) -> list[bytes]:
        chat = "messages" in body
        said = ""
        if chat:
            messages = body["messages"]
            if messages[-1]["role"] == "assistant":
                assert body["continue_final_message"] is True
                assert body["add_generation_prompt"] is False
                said = messages[-1]["content"]
                messages = messages[:-1]
            text = messages[-1]["content"]
        else:
            text, _, said = body["prompt"].partition("|")
        so_far = body.get(MEMBER) if mode == CONTINUE else None
        self._answers += 1
        stamp = {"id": f"{self.name}-{self._answers}", "created": 1000 + self._answers, "model": "mock"}
        if so_far is not None:
            stamp |= {"id": so_far["id"], "created": so_far["created"]}
        words = [word + " " for word in text.split(" ")]
        begun = len(so_far["tokens"]) if so_far else len(said.split(" ")) - 1 if said else 0
        sent = so_far["sent"] if so_far else len(said)
        whole = "".join(words)
        limit = body.get("max_tokens")
        last = len(words) if limit is None or self.dialect == "penstock" else min(len(words), begun + limit)
        if limit is not None and self.dialect == "penstock":
            last = min(last, limit)
        events = []
        if chat and so_far is None:
            events.append(self._event(stamp, {"role": "assistant", "content": ""} if chat else ""))
        told: list[int] = []
        for place in range(begun, last):
            told.append(place)
            held = 2 if self.dialect == "penstock" and place < last - 1 else 0  # the end of a word waits for the next
            upto = len("".join(words[: place + 1])) - held
            if upto <= sent:
                continue
            event = self._event(stamp, {"content": whole[sent:upto]} if chat else whole[sent:upto])
            sent = upto
            if mode in {TELL, CONTINUE} and self.dialect == "penstock":
                event = ids_line(sent, told) + event
                told = []
            events.append(event)
        if so_far is None or not so_far["ended"]:
            finish = "stop" if last == len(words) else "length"
            events.append(self._event(stamp, {} if chat else "", finish))
        if (body.get("stream_options") or {}).get("include_usage"):
            prompt, completion = (PROMPT, last) if self.dialect == "penstock" else (PROMPT + begun, last - begun)
            usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
            events.append(_encode({**stamp, "object": "chat.completion.chunk", "choices": [], "usage": usage}))
        return events

    def _event(self, stamp: dict[str, Any], said: dict[str, Any] | str, finish: str | None = None) -> bytes:
        named = {"text": said} if isinstance(said, str) else {"delta": said}
        choice = {"index": 0, **named, "finish_reason": finish}
        return _encode({**stamp, "object": "chat.completion.chunk", "choices": [choice]})


def _encode(document: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"
