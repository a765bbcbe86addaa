"""The few fields of an OpenAI request that a gateway needs, checked for type and range; all others pass unseen."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from penstock.core.errors import BadRequest
from penstock.wire.members import plainly_distinct

Role = Literal["system", "user", "assistant", "tool", "developer", "function"]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Label = Annotated[str, msgspec.Meta(max_length=512)]
Stop = Annotated[list[str], msgspec.Meta(max_length=16)]


class Part(msgspec.Struct, frozen=True):
    """One part of a message whose content is a list; of the kinds only text is looked into."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message: who said it, and what."""

    role: Role
    content: str | list[Part] | None = None


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


class DuplicateKeyError(ValueError):
    """An object names a member twice: two readers may disagree about which counts."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_decoder: Any = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_scan_once = _decoder.scan_once  # the scanner alone, in C


def check_members(body: bytes) -> None:
    """Raises `ValueError` if an object in `body`, which has been decoded and so is JSON, names a member twice."""
    if not plainly_distinct(body):
        text = body.decode()
        _scan_once(text, text.index("{"))


_decode_chat = msgspec.json.Decoder(ChatEnvelope).decode
_decode_completion = msgspec.json.Decoder(CompletionEnvelope).decode
_decode_embeddings = msgspec.json.Decoder(EmbeddingsEnvelope).decode


def decode_chat(body: bytes) -> ChatEnvelope:
    """The envelope of a chat completion's body.

    Raises:
        BadRequest: if it is not a JSON object in UTF-8, names a member twice, or a field has a wrong type or value; `param`
            names the field, as in `messages[0].role`.
    """
    try:
        envelope = _decode_chat(body)
        check_members(body)
    except (ValueError, RecursionError) as error:
        raise bad_body(body, error) from None
    for index, message in enumerate(envelope.messages):
        if message.content is None and message.role in {"user", "system", "developer", "tool"}:
            param = f"messages[{index}].content"
            raise BadRequest(f"A message of role {message.role!r} needs a content.", param=param)
    return envelope


def decode_completion(body: bytes) -> CompletionEnvelope:
    """The envelope of a text completion's body.

    Raises:
        BadRequest: as `decode_chat`.
    """
    try:
        envelope = _decode_completion(body)
        check_members(body)
    except (ValueError, RecursionError) as error:
        raise bad_body(body, error) from None
    if envelope.prompt is None:
        raise BadRequest("The field `prompt` is missing.", param="prompt")
    return envelope


def decode_embeddings(body: bytes) -> EmbeddingsEnvelope:
    """The envelope of a body that asks for embeddings.

    Raises:
        BadRequest: as `decode_chat`; also if the inputs are of several kinds.
    """
    try:
        envelope = _decode_embeddings(body)
        check_members(body)
    except (ValueError, RecursionError) as error:
        raise bad_body(body, error) from None
    if envelope.stream:
        raise BadRequest("Embeddings are not streamed.", param="stream")
    if isinstance(envelope.input, list) and len({type(one) for one in envelope.input}) > 1:
        raise BadRequest("The inputs must all be texts, or all be lists of tokens.", param="input")
    return envelope


def bad_body(body: bytes, error: Exception) -> BadRequest:
    """What is wrong with `body`, for its author, given what a decoder said."""
    if not body:
        return BadRequest("The request has no body: send a JSON object.", code="invalid_json")
    if isinstance(error, RecursionError):
        return BadRequest("The JSON of the body is nested too deeply.", code="invalid_json")
    if isinstance(error, DuplicateKeyError):
        return BadRequest(f"The body names the member {error.key!r} twice.", code="duplicate_field", param=error.key)
    if isinstance(error, UnicodeDecodeError):
        return BadRequest(f"The body is not UTF-8: byte {error.start} is wrong.", code="invalid_json")
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return BadRequest(f"The body is not JSON: {text}.", code="invalid_json")
    problem, _, path = text.partition(" - at `$")
    path = path.rstrip("`").removeprefix(".")
    if problem.startswith("Object missing required field `"):
        field = problem.split("`")[1]
        path = f"{path}.{field}" if path else field
        return BadRequest(f"The field `{path}` is missing.", param=path, code="missing_required_parameter")
    if not path:
        return BadRequest(f"The body must be a JSON object: {problem}.", code="invalid_json")
    return BadRequest(f"The field `{path}` is wrong: {problem}.", param=path)
