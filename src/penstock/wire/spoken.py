"""The texts of an answer, whole or streamed, for those who keep them."""

import msgspec

from penstock.wire.sse import event_data, split_events


class _Holder(msgspec.Struct, frozen=True):
    """A message, or a delta of one."""

    content: object = None
    reasoning_content: object = None
    refusal: object = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    message: _Holder | None = None
    delta: _Holder | None = None
    text: object = None  # of completions


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Answer).decode
Texts = dict[tuple[int, str], list[str]]


def texts_of(body: bytes) -> list[tuple[int, str, str]]:
    """(Index of the choice, field, text) of a whole answer, in their order; nothing of what cannot be read."""
    found: Texts = {}
    _take(body, found)
    return _joined(found)


def texts_of_events(pieces: list[bytes]) -> list[tuple[int, str, str]]:
    """The same of a stream's events, whose texts are put together; also of one that broke off."""
    found: Texts = {}
    for event in split_events(b"".join(pieces)):
        if b"choices" in event:
            _take(event_data(event), found)
    return _joined(found)


def _take(body: bytes, found: Texts) -> None:
    try:
        choices = _decode(body).choices
    except (ValueError, RecursionError):
        return
    for choice in choices:
        holder = choice.delta or choice.message
        if holder is None:
            parts: tuple[tuple[str, object], ...] = (("text", choice.text),)
        else:
            parts = (
                ("reasoning_content", holder.reasoning_content),
                ("content", holder.content),
                ("refusal", holder.refusal),
            )
        for field, text in parts:
            if isinstance(text, str) and text:
                found.setdefault((choice.index, field), []).append(text)


def _joined(found: Texts) -> list[tuple[int, str, str]]:
    return [(index, field, "".join(texts)) for (index, field), texts in found.items()]
