"""What a gateway reads of an answer: usage, finish reasons, and the text of a stream's events."""

import msgspec

from penstock.core.exchange import Usage

_MOST_TOKENS = 1 << 40  # beyond it a number is a lie, not a count


class PromptDetails(msgspec.Struct, frozen=True):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class WireUsage(msgspec.Struct, frozen=True):
    """`usage` as it is sent."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Choice(msgspec.Struct, frozen=True):
    """A choice, of which only the end is read."""

    finish_reason: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, or one event of a stream."""

    choices: list[Choice] = []
    data: list[msgspec.Raw] = []  # of embeddings
    usage: WireUsage | None = None
    error: msgspec.Raw = msgspec.Raw()

    @property
    def failed(self) -> bool:
        """Whether this tells an error instead of an answer."""
        return bytes(self.error) not in {b"", b"null"}


decode_answer = msgspec.json.Decoder(Answer).decode


def usage_of(wire: WireUsage | None) -> Usage | None:
    """The usage that `wire` tells; None if it tells none, or numbers that cannot be."""
    if wire is None:
        return None
    prompt, completion = wire.prompt_tokens, wire.completion_tokens or 0
    details = wire.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    if not (0 <= prompt < _MOST_TOKENS and 0 <= completion < _MOST_TOKENS and 0 <= cached <= prompt):
        return None
    return Usage(prompt, completion, cached)


def finish_of(choices: list[Choice]) -> str:
    """The finish reason of the first choice that has one, else ""."""
    for choice in choices:
        if choice.finish_reason:
            return choice.finish_reason
    return ""
