"""The few fields of a stream's event that tell whether it is a piece of text and nothing else."""

from typing import Any

import msgspec


class Delta(msgspec.Struct, frozen=True, gc=False):
    """What an event adds to a choice."""

    content: str | None = None


class EventChoice(msgspec.Struct, frozen=True, gc=False):
    """A choice of an event."""

    index: int = 0
    delta: Delta | None = None
    finish_reason: Any = None
    logprobs: Any = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event of a streamed chat."""

    choices: list[EventChoice] = []


decode_event = msgspec.json.Decoder(Event).decode
encode_text = msgspec.json.Encoder().encode
