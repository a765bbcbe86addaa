"""The few fields of an OpenAI request that a gateway needs, checked for type and range; all others pass unseen."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool", "developer", "function"]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Label = Annotated[str, msgspec.Meta(max_length=512)]
NOTHING = msgspec.Raw()  # a member that is not there
Stop = Annotated[list[str], msgspec.Meta(max_length=16)]


def nothing() -> msgspec.Raw:
    """`NOTHING`, as a default that descriptions of these types need not write down."""
    return NOTHING


class Part(msgspec.Struct, frozen=True):
    """One part of a message whose content is a list; of the kinds only text is looked into."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message: who said it, and what."""

    role: Role
    content: str | list[Part] | None = None
    tool_calls: msgspec.Raw = msgspec.field(default_factory=nothing)  # read by those alone who keep them
    function_call: msgspec.Raw = msgspec.field(default_factory=nothing)  # as before tools


class StreamOptions(msgspec.Struct, frozen=True):
    """What the client wants to know besides the text."""

    include_usage: bool | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What all requests to models have in common.

    Attributes:
        deterministic: the same question always has the same answer, whatever its parameters.
    """

    deterministic: ClassVar[bool] = False

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stop: str | Stop | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    user: Label | None = None
    metadata: dict[str, Any] | None = None
    cache_salt: Any = msgspec.UNSET  # null is a value
    tools: Any = None
    functions: Any = None  # as before tools

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage chunk of its stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def offers_tools(self) -> bool:
        """Whether the answer may be an act, not only a text: at least one tool or function is named."""
        return bool(self.tools or self.functions)

    @property
    def token_limit(self) -> int | None:
        """How many tokens each choice may have, if the client said."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    def texts(self) -> Iterator[str]:
        """The texts that the client sends, in their order."""
        yield from ()


class ChatEnvelope(Envelope, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]

    def texts(self) -> Iterator[str]:
        """The texts of all messages."""
        for message in self.messages:
            content = message.content
            if isinstance(content, str):
                yield content
            elif content is not None:
                for part in content:
                    if part.text is not None:
                        yield part.text


class CompletionEnvelope(Envelope, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | list[str | int | list[int]] | None = None

    def texts(self) -> Iterator[str]:
        """The prompts that are text; lists of token ids are none."""
        prompt = self.prompt
        if isinstance(prompt, str):
            yield prompt
        elif prompt is not None:
            for one in prompt:
                if isinstance(one, str):
                    yield one


class EmbeddingsEnvelope(Envelope, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    deterministic: ClassVar[bool] = True

    input: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1)]

    @property
    def token_limit(self) -> int:
        """Nothing is generated."""
        return 0

    def texts(self) -> Iterator[str]:
        """The inputs that are text; lists of token ids are none."""
        asked = self.input
        if isinstance(asked, str):
            yield asked
        else:
            for one in asked:
                if isinstance(one, str):
                    yield one
