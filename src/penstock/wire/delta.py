"""Finds the text of an event where it stands in its bytes, so that another text can be put there without writing the rest anew."""

from __future__ import annotations

from typing import Final

from penstock.wire.event import decode_event, encode_text

PlainDelta = tuple[str, int, int]
_NAME: Final = b'"content":'


def plain_delta(payload: bytes) -> PlainDelta | None:
    """The text of an event that adds one piece of content to its first choice, and does nothing else to any.

    Returns:
        The text, and where its JSON string begins and ends in `payload`; None if the event is of any other kind, or writes its text in
        another way than the shortest.
    """
    at = payload.find(_NAME)
    if (
        at < 1 or payload[at - 1] != 0x7B or payload.find(_NAME, at + 1) >= 0
    ):  # not the first member of its object, or another one
        return None
    if payload.find(b"\\u") >= 0:  # a member's name may be written in another way
        return None
    try:
        choices = decode_event(payload).choices
    except ValueError:
        return None
    if len(choices) != 1:
        return None
    choice = choices[0]
    delta = choice.delta
    if delta is None or choice.index != 0 or choice.finish_reason is not None or choice.logprobs is not None:
        return None
    text = delta.content
    if not text:
        return None
    begin = at + len(_NAME)
    if payload[begin] == 0x20:
        begin += 1
    written = encode_text(text)
    end = begin + len(written)
    if not payload.startswith(written, begin) or payload[end : end + 1] != b"}":  # or not the only member
        return None
    return text, begin, end
