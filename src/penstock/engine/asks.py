"""What a client asks for: the OpenAI request bodies, checked field by field, made into one value.

Every field is taken, or refused by its name: none is ignored that would change the answer. `docs/reference/engine.md` has the table.
"""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from penstock.core.errors import BadRequest
from penstock.engine.wrong_fields import wrong_field
from penstock.wire.resume import CONTINUE, MEMBER, TELL, Continuation

_MOST_STOPS = 16
_MOST_CHOICES = 128

# Fields that the engine cannot honour, each with the values that ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
# Fields that change nothing in an answer.
_NEUTRAL = frozenset(
    {"metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"}
)
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

Penalty = Annotated[float, Meta(ge=-2, le=2)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`stream_options`."""

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against listeners: none is ever added


class _Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**63 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Meta(ge=1e-6, le=2)] | None = None
    seed: int | None = None
    n: Annotated[int, Meta(ge=1, le=_MOST_CHOICES)] = 1
    stop: str | list[str] = ()  # type: ignore[assignment]
    stream: bool = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False


class ChatBody(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool = False


class CompletionBody(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/completions`."""

    prompt: str | list[Any]  # a text, texts, token ids, or lists of them
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


_Body = TypeVar("_Body", ChatBody, CompletionBody)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the engine answers it. None stands for the model's own default.

    Attributes:
        messages: of a chat; the template makes the prompt of them.
        prompts: of a completion; texts or token ids.
        max_tokens: most tokens of each choice; None: as many as there is room for.
        tell: the stream's tokens are wanted beside its text.
        continued: what another replica has brought forth of this answer.
    """

    model: str
    messages: list[dict[str, Any]] | None = None
    prompts: list[str] | list[list[int]] = []
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    ignore_eos: bool = False
    tell: bool = False
    continued: Continuation | None = None


def read_chat(body: bytes, resume: bytes = b"") -> Ask:
    """The chat completion that `body` asks for; `resume` is the value of the header field that gateways set (`wire.resume`).

    Raises:
        BadRequest: naming the field that is wrong.
    """
    fields = _fields(body)
    continued = _continued(fields, resume)
    chat = _convert(fields, ChatBody)
    return Ask(
        messages=[_message(index, message) for index, message in enumerate(chat.messages)],
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        logprobs=chat.logprobs,
        **_shared(chat),
        **_resumed(chat, continued, resume, prompts=1),
    )


def read_completion(body: bytes, resume: bytes = b"") -> Ask:
    """The completion that `body` asks for; `resume` as for `read_chat`.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    fields = _fields(body)
    continued = _continued(fields, resume)
    completion = _convert(fields, CompletionBody)
    if completion.logprobs:
        raise _unsupported("logprobs", f"{completion.logprobs}; only 0, the chosen tokens' own, is given")
    prompts = _prompts(completion.prompt)
    if len(prompts) * completion.n > _MOST_CHOICES:
        raise BadRequest(f"prompt times n asks for more than {_MOST_CHOICES} choices.", param="prompt")
    return Ask(
        prompts=prompts,
        max_tokens=completion.max_tokens or 16,
        logprobs=completion.logprobs is not None,
        **_shared(completion),
        **_resumed(completion, continued, resume, prompts=len(prompts)),
    )


def _continued(fields: dict[str, Any], resume: bytes) -> Continuation | None:
    """Takes the continuation out of `fields`. Without the header field it is an unknown member, as clients are told."""
    if resume != CONTINUE:
        return None
    try:
        return msgspec.convert(fields.pop(MEMBER, None), Continuation)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{MEMBER} is wrong: {error}.", param=MEMBER) from None


def _resumed(
    body: ChatBody | CompletionBody, continued: Continuation | None, resume: bytes, *, prompts: int
) -> dict[str, Any]:
    """Whether tokens are told: not where another replica could not go on from them alone.

    Log-probabilities of tokens whose text is held back would be lost, and the pipeline takes presence and frequency for those of
    tokens that it made itself.
    """
    exact = body.stream and body.n == prompts == 1
    exact = exact and body.logprobs in {None, False} and not body.presence_penalty and not body.frequency_penalty
    if continued is not None and not exact:
        raise BadRequest(
            "Only a stream of one choice without log-probabilities and penalties can be continued.", param=MEMBER
        )
    return {"tell": exact and resume in {TELL, CONTINUE}, "continued": continued}


def _prompts(prompt: str | list[Any]) -> list[str] | list[list[int]]:
    given: list[Any] = [prompt] if isinstance(prompt, str) or any(type(item) is int for item in prompt) else prompt
    if not given or not all(given):
        raise BadRequest("prompt is empty: give at least one character or token.", param="prompt")
    try:
        return (
            msgspec.convert(given, list[str]) if isinstance(given[0], str) else msgspec.convert(given, list[list[int]])
        )
    except msgspec.ValidationError:
        raise BadRequest(
            "prompt is wrong: give a text, texts, token ids, or lists of token ids.", param="prompt"
        ) from None


def _fields(body: bytes) -> dict[str, Any]:
    """The body's fields without those that are null or ask for nothing."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise BadRequest("The body is not a JSON object.", code="invalid_json")
    kept = {}
    for name, value in fields.items():
        if value is None or name in _NEUTRAL:
            continue
        neutral = _REFUSED.get(name)
        if neutral is None:
            kept[name] = value
        elif not any(value == harmless and type(value) is type(harmless) for harmless in neutral):
            raise _unsupported(name, "what the embedded engine cannot do")
    return kept


def _unsupported(name: str, why: str) -> BadRequest:
    return BadRequest(f"{name} asks for {why}; leave it out.", code="unsupported_parameter", param=name)


def _convert(fields: dict[str, Any], kind: type[_Body]) -> _Body:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise wrong_field(error) from None


def _shared(body: ChatBody | CompletionBody) -> dict[str, Any]:
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if len(stops) > _MOST_STOPS or not all(stops):
        raise BadRequest(f"stop takes up to {_MOST_STOPS} strings, none of them empty.", param="stop")
    if body.stream_options is not None and not body.stream:
        raise BadRequest("stream_options goes with stream: true only.", param="stream_options")
    names = ("model", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed", "n")
    shared = {name: getattr(body, name) for name in (*names, "repetition_penalty", "stream", "ignore_eos")}
    return {
        **shared,
        "stop": stops,
        "include_usage": body.stream_options is not None and body.stream_options.include_usage,
    }


def _message(index: int, message: dict[str, Any]) -> dict[str, Any]:
    """One message with its content as a single text."""
    at = f"messages[{index}]"
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRequest(f"{at}.role is {role!r}, not one of {', '.join(sorted(_ROLES))}.", param=f"{at}.role")
    for name in ("tool_calls", "function_call", "audio"):
        if message.get(name):
            raise _unsupported(f"{at}.{name}", "what the embedded engine cannot do")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(f"{at}.content[{place}]", part) for place, part in enumerate(content))
    if not isinstance(content, str):
        raise BadRequest(f"{at}.content is missing: give a text.", param=f"{at}.content")
    return {**{name: value for name, value in message.items() if value is not None}, "content": content}


def _part(at: str, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else part
    raise BadRequest(f"{at} is {kind!r}; the embedded engine reads text only.", code="unsupported_parameter", param=at)
