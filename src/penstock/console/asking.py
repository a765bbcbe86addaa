"""Asking a gateway as the playground does: one chat request, told as it comes."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from penstock.console.client import told_error
from penstock.wire.sse import EventSplitter, event_data


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the form holds. Without a temperature the engine's own applies."""

    model: str = ""
    message: str = ""
    system: str = ""
    temperature: float | None = None
    max_tokens: int | None = None

    def body(self) -> dict[str, Any]:
        """The request's body."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": self.message}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return body


class Delta(msgspec.Struct, frozen=True):
    """The next piece of the answer."""

    text: str


class Trouble(msgspec.Struct, frozen=True):
    """Why there is no answer, or no more of it."""

    message: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an answer; times in seconds from the sending of the request."""

    request_id: str = ""
    version: str = ""
    digest: str = ""
    arm: str = ""
    cache: str = ""
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    cost_usd: float | None = None


class _Function(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Function = _Function()
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_TIMEOUT = httpx.Timeout(60.0, connect=3.0)


async def ask(gateway: httpx.AsyncClient, url: str, key: str, asked: Asked) -> AsyncIterator[Delta | Trouble | Facts]:
    """Send the question and tell what comes: pieces of the answer, trouble if there is some, and the facts last.

    Closing the iterator closes the request, and so the gateway cancels the engine's work.
    """
    begun = time.perf_counter()
    facts = Facts()
    try:
        async with gateway.stream(
            "POST",
            f"{url}/v1/chat/completions",
            json=asked.body(),
            headers={"authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
        ) as reply:
            facts = _facts_of(reply)
            if reply.status_code != 200:
                error = told_error(reply.status_code, await reply.aread())
                yield Trouble(error.message)
            else:
                async for item in _read(reply):
                    if isinstance(item, Delta) and facts.first_token_s is None:
                        facts = msgspec.structs.replace(facts, first_token_s=time.perf_counter() - begun)
                    if isinstance(item, _Chunk):
                        facts = _with(facts, item)
                    else:
                        yield item
    except httpx.TimeoutException:
        yield Trouble(f"The gateway at {url} did not answer in time.")
    except httpx.HTTPError as error:
        yield Trouble(f"The gateway at {url} cannot be reached: {error}. Is it running?")
    yield msgspec.structs.replace(facts, total_s=time.perf_counter() - begun)


def _facts_of(reply: httpx.Response) -> Facts:
    head = reply.headers
    return Facts(
        request_id=head.get("x-penstock-request-id", ""),
        version=head.get("x-penstock-version", ""),
        digest=head.get("x-penstock-digest", ""),
        arm=head.get("x-penstock-arm", ""),
        cache=head.get("x-penstock-cache", ""),
    )


def _with(facts: Facts, chunk: _Chunk) -> Facts:
    finish = chunk.choices[0].finish_reason if chunk.choices else None
    if finish:
        facts = msgspec.structs.replace(facts, finish=finish)
    if chunk.usage is not None:
        facts = msgspec.structs.replace(
            facts, prompt_tokens=chunk.usage.prompt_tokens, completion_tokens=chunk.usage.completion_tokens
        )
    return facts


async def _read(reply: httpx.Response) -> AsyncIterator[Delta | Trouble | _Chunk]:
    splitter = EventSplitter()
    done = False
    async for piece in reply.aiter_raw():
        for event in splitter.feed(piece):
            data = event_data(event)
            if data == b"[DONE]":
                done = True
                continue
            if not data:
                continue
            try:
                chunk = _CHUNK.decode(data)
            except msgspec.DecodeError as error:
                yield Trouble(f"The gateway sent what is no chunk of an answer: {error}.")
                return
            if chunk.error is not None:
                yield Trouble(str(chunk.error.get("message") or "The answer broke off."))
                return
            if chunk.choices and chunk.choices[0].delta.content:
                yield Delta(chunk.choices[0].delta.content)
            yield chunk
    if not done:
        yield Trouble("The answer broke off before its end.")


async def gathered(items: AsyncIterator[Delta | Trouble | Facts]) -> tuple[str, str, Facts]:
    """The whole of it: the answer's text, the trouble if any, the facts."""
    text, trouble, facts = [], "", Facts()
    async for item in items:
        if isinstance(item, Delta):
            text.append(item.text)
        elif isinstance(item, Trouble):
            trouble = item.message
        else:
            facts = item
        await asyncio.sleep(0)
    return "".join(text), trouble, facts
