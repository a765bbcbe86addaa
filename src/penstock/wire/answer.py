"""The few fields of an answer that a gateway reads."""

import msgspec


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
