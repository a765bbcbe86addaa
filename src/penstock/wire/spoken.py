"""The texts of an answer, whole or streamed, and the calls of tools in it and in the question, for those who keep them."""

import msgspec

from penstock.wire.envelope import NOTHING, Message
from penstock.wire.sse import event_data, split_events

CALL = "tool_call"  # in place of a role or a field: a call, as NAME(ARGUMENTS)


class _Function(msgspec.Struct, frozen=True):
    """What is called, or a delta of it."""

    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, frozen=True):
    index: int = 0
    function: _Function | None = None


class _Holder(msgspec.Struct, frozen=True):
    """A message, or a delta of one."""

    content: object = None
    reasoning_content: object = None
    refusal: object = None
    tool_calls: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    message: _Holder | None = None
    delta: _Holder | None = None
    text: object = None  # of completions


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Answer).decode
_decode_calls = msgspec.json.Decoder(list[_Call] | None).decode
_decode_function = msgspec.json.Decoder(_Function | None).decode
Texts = dict[tuple[int, str], list[str]]


def calls_of(message: Message) -> list[str]:
    """The calls of tools in a message of the question, each as NAME(ARGUMENTS)."""
    found: Texts = {}
    _take_calls(0, message.tool_calls, message.function_call, found, whole=True)
    return [text for _, _, text in _joined(found)]


def texts_of(body: bytes) -> list[tuple[int, str, str]]:
    """(Index of the choice, field, text) of a whole answer, in their order; nothing of what cannot be read."""
    choices = _choices(body)
    if len(choices) == 1:  # nearly every answer is one text and nothing else
        message = choices[0].message
        if (
            message is not None
            and message.reasoning_content is message.refusal is None
            and message.tool_calls is message.function_call is NOTHING
        ):
            content = message.content
            return [(choices[0].index, "content", content)] if isinstance(content, str) and content else []
    found: Texts = {}
    _take(choices, found)
    return _joined(found)


def texts_of_events(pieces: list[bytes]) -> list[tuple[int, str, str]]:
    """The same of a stream's events, whose texts are put together; also of one that broke off."""
    found: Texts = {}
    for event in split_events(b"".join(pieces)):
        if b"choices" in event:
            _take(_choices(event_data(event)), found)
    return _joined(found)


def _choices(body: bytes) -> list[_Choice]:
    try:
        return _decode(body).choices
    except (ValueError, RecursionError):
        return []


def _take(choices: list[_Choice], found: Texts) -> None:
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
        if holder is not None and not (holder.tool_calls is NOTHING and holder.function_call is NOTHING):
            whole = choice.delta is None
            _take_calls(choice.index, holder.tool_calls, holder.function_call, found, whole=whole)


def _take_calls(index: int, tools: msgspec.Raw, function: msgspec.Raw, found: Texts, *, whole: bool) -> None:
    """Adds to calls, which in a stream come in pieces that go by their number."""
    try:
        calls = (None if tools is NOTHING else _decode_calls(tools)) or []
        before = None if function is NOTHING else _decode_function(function)
    except (ValueError, RecursionError):
        return
    named = [(at if whole else call.index, call.function) for at, call in enumerate(calls)]
    for number, one in [*named, (-1, before)]:
        if one is not None:
            texts = found.setdefault((index, f"{CALL} {number}"), [])
            texts += [f"{one.name}("] if one.name else []
            texts += [one.arguments] if one.arguments else []


def _joined(found: Texts) -> list[tuple[int, str, str]]:
    return [
        (index, CALL, "".join([*texts, ")"])) if field.startswith(CALL) else (index, field, "".join(texts))
        for (index, field), texts in found.items()
    ]
