"""What is remembered of a stream of vLLM's dialect: its text, which another replica is given as the beginning of the answer.

`continue_final_message` of vLLM's chat API has the last message gone on with. The tokens at the seam may be other ones than the first
replica would have drawn, and the tokens so far are counted by events; the text is exact.
"""

from __future__ import annotations

from typing import Any

from penstock.gateway.call import Call
from penstock.gateway.trail import Trail
from penstock.net.client import Response
from penstock.wire.edit import replaced
from penstock.wire.resume import Head
from penstock.wire.sse import encode_event, event_data, split_events
from penstock.wire.vllm import decode_asked, decode_chunk, decode_told

# What the text alone does not tell how to go on with.
_STATEFUL = (
    b'"tools"', b'"functions"', b'"response_format"', b'"structured_outputs"', b'"guided_', b'"logprobs"', b'"echo"', b'"continue_final_message"',
)  # fmt: skip


class TextTrail(Trail):
    """Of a vLLM server."""

    __slots__ = ("_earlier", "_head", "_lost", "_texts", "_told")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._texts: list[str] = []
        self._told = 0  # events with text: vLLM sends one for each token
        self._earlier = 0  # as many of them came from earlier replicas
        self._lost = any(word in call.body for word in _STATEFUL)
        self._head: Head | None = None  # of the first stream, once another one goes on with it

    def fits(self, response: Response) -> bool:
        """Always: vLLM promises nothing in its head."""
        return True

    def _pass_on(self, data: bytes) -> bytes:
        if not self._start:
            self._start = data
        if self._head is not None or not self._lost:
            data = b"".join([self._seen(event) for event in split_events(data)])
        return super()._pass_on(data)

    def _seen(self, event: bytes) -> bytes:
        """Keeps the event's text; what the client is to get of it."""
        payload = event_data(event)
        if not payload or payload == b"[DONE]":
            return event
        chunk = decode_chunk(payload)
        says = not chunk.choices
        for choice in chunk.choices:
            delta = choice.delta
            if delta.tool_calls or delta.reasoning or delta.reasoning_content:
                self._lost = says = True
            text = delta.content or choice.text
            if text:
                self._texts.append(text)
                self._told += 1
                self._kept += len(text)
            says = says or bool(text) or choice.finish_reason is not None
        if self._head is None:
            return event
        return self._translated(payload, self._head) if says else b""  # who speaks was told at the beginning

    def _translated(self, payload: bytes, head: Head) -> bytes:
        """An event of a later replica as the first one would have said it."""
        if b'"error"' in payload:
            return encode_event(payload)
        changes: dict[str, Any] = {"id": head.id, "created": head.created}
        usage = decode_told(payload).usage
        if usage is not None:
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if isinstance(prompt, int) and isinstance(completion, int):
                usage["prompt_tokens"] = max(0, prompt - self._earlier)
                usage["completion_tokens"] = completion + min(prompt, self._earlier)
                changes["usage"] = usage
        return encode_event(replaced(payload, changes))

    def _ask(self, call: Call, head: Head) -> bool:
        if self._lost or self.ended:
            return False
        asked = decode_asked(self._body)
        text = "".join(self._texts)
        changes: dict[str, Any] = {}
        if call.operation != "completions":
            changes["messages"] = [*asked.messages, {"role": "assistant", "content": text}]
            changes["continue_final_message"] = True
            changes["add_generation_prompt"] = False
        elif isinstance(asked.prompt, str):
            changes["prompt"] = asked.prompt + text
        else:
            return False
        for name in ("max_tokens", "max_completion_tokens"):
            limit = getattr(asked, name)
            if limit is not None:
                if limit <= self._told:
                    return False
                changes[name] = limit - self._told
        call.body = replaced(self._body, changes)
        self._head = head
        self._earlier = self._told
        return True
