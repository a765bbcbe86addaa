"""How sure a model was: the log-probabilities of an answer's tokens, read, asked for, and taken out again."""

from typing import Any

import msgspec

from penstock.wire.edit import replaced


class _Token(msgspec.Struct, frozen=True):
    logprob: float


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[_Token] | None = None  # of a chat
    token_logprobs: list[float | None] | None = None  # of a completion


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None


class Part(msgspec.Struct, frozen=True):
    """One choice of an answer, or of one event of it."""

    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> str:
        """Its text."""
        holder = self.message or self.delta
        return (holder.content if holder is not None else self.text) or ""

    @property
    def scores(self) -> list[float] | None:
        """The natural logarithms of its tokens' probabilities; None if they are not told."""
        told = self.logprobs
        if told is None:
            return None
        if told.content is not None:
            return [token.logprob for token in told.content]
        return None if told.token_logprobs is None else [one for one in told.token_logprobs if one is not None]


class _Answer(msgspec.Struct, frozen=True):
    choices: list[Part] = []


class _Wish(msgspec.Struct, frozen=True):
    logprobs: bool | int | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_wish = msgspec.json.Decoder(_Wish).decode
_document = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def parts_of(data: bytes) -> list[Part]:
    """The choices of a whole answer, or of one event.

    Raises:
        ValueError: if `data` is neither.
    """
    return _answer(data).choices


def asking(body: bytes, *, chat: bool) -> bytes | None:
    """`body` asking for the log-probabilities of the chosen tokens; None if it does so already.

    Raises:
        ValueError: if it is no JSON object.
    """
    wish = _wish(body).logprobs
    if wish is True or (wish is not None and wish is not False and not chat):
        return None
    return replaced(body, {"logprobs": True if chat else 0})


def without(data: bytes) -> bytes:
    """An answer, or one event's data, whose choices tell none.

    Raises:
        ValueError: if it is no JSON object.
    """
    document = _document(data)
    told = False
    for choice in document.get("choices") or ():
        if isinstance(choice, dict) and choice.get("logprobs") is not None:
            choice["logprobs"] = None
            told = True
    return _encode(document) if told else data
