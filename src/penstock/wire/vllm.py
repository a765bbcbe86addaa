"""What is read of vLLM's streams and requests when one of its answers is gone on with."""

from typing import Any

import msgspec


class Delta(msgspec.Struct, frozen=True):
    """What an event adds to the answer."""

    content: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None


class Choice(msgspec.Struct, frozen=True):
    """One choice of an event."""

    delta: Delta = Delta()
    text: str | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event."""

    choices: list[Choice] = []


class Told(msgspec.Struct, frozen=True):
    """An event's usage."""

    usage: dict[str, Any] | None = None


class Asked(msgspec.Struct, frozen=True):
    """What a request asks to be gone on with, and how long it may become."""

    messages: list[msgspec.Raw] = []
    prompt: Any = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_asked = msgspec.json.Decoder(Asked).decode
decode_told = msgspec.json.Decoder(Told).decode
