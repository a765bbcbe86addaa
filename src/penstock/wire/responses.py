"""Requests of OpenAI's Responses API, said as chat completions, which is what engines speak.

Nothing is stored between requests: what would need a memory is refused by name. Members that are not known here pass on to the engine as
they were written, as those of chat completions do. `docs/reference/gateway.md` has the table.
"""

from typing import Annotated, Any, TypeVar

import msgspec

from penstock.core.errors import BadRequest
from penstock.wire.decoding import bad_body, check_members
from penstock.wire.envelope import Count, Label, Name, Role

_Raw = msgspec.Raw
Value = TypeVar("Value")


class InputPart(msgspec.Struct, frozen=True):
    """One part of a message's content, as it is sent in and as an earlier answer gave it out."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: dict[str, Any] | None = None


class InputItem(msgspec.Struct, frozen=True):
    """One item of `input`: a message, a call that an earlier answer made, or what it led to."""

    type: str = "message"
    role: Role | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool that the model may call; only functions are passed on."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, frozen=True):
    """`text`: the form of the answer."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponsesEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/responses`."""

    model: Name
    input: str | Annotated[list[InputItem], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    user: Label | None = None
    store: bool | None = None


# What would change the answer and cannot be done, each with the values that ask for nothing, as JSON.
_REFUSED: dict[str, tuple[bytes, ...]] = {
    "background": (b"false",),
    "conversation": (),
    "max_tool_calls": (),
    "n": (b"1",),
    "previous_response_id": (),
    "prompt": (),
    "truncation": (b'"disabled"',),
    **dict.fromkeys(("messages", "max_completion_tokens", "max_tokens", "response_format", "functions"), ()),
}
_WHY = {
    "messages": "It belongs to chat completions: send `input`.",
    "max_completion_tokens": "It belongs to chat completions: send `max_output_tokens`.",
    "max_tokens": "It belongs to chat completions: send `max_output_tokens`.",
    "response_format": "It belongs to chat completions: send `text.format`.",
    "functions": "It belongs to chat completions: send `tools`.",
    "conversation": "Nothing is stored here: send the whole conversation as `input`.",
    "previous_response_id": "Nothing is stored here: send the whole conversation as `input`.",
    "background": "Answers are given while they are waited for: leave `background` out.",
    "prompt": "No prompt templates are kept here: send `instructions` and `input`.",
    "truncation": "Input is never cut silently: leave `truncation` out, or set a trim on the route.",
}
_OWN = frozenset(ResponsesEnvelope.__struct_fields__) | _REFUSED.keys() | {"stream_options"}
_SAME = ("model", "temperature", "top_p", "parallel_tool_calls", "metadata", "user")  # in both, with one meaning
_TEXT_PARTS = frozenset({"input_text", "output_text", "text"})

_decode = msgspec.json.Decoder(ResponsesEnvelope).decode
_members = msgspec.json.Decoder(dict[str, _Raw]).decode
_encode = msgspec.json.Encoder().encode


def decode_responses(body: bytes) -> ResponsesEnvelope:
    """The request that `body` holds.

    Raises:
        BadRequest: if it is malformed, or asks for what is not done here; `param` names the field.
    """
    try:
        asked = _decode(body)
        check_members(body)
    except (ValueError, RecursionError) as error:
        raise bad_body(body, error) from None
    for name, raw in _members(body).items():
        value = bytes(raw)
        if name in _REFUSED and value != b"null" and value not in _REFUSED[name]:
            raise _unsupported(name, _WHY.get(name, "Leave it out."))
    if asked.store:
        raise _unsupported("store", "Nothing is stored here: leave `store` out, or set it to false.")
    return asked


def chat_body(asked: ResponsesEnvelope, body: bytes) -> bytes:
    """The chat completion that asks the same as `asked`, which was read from `body`.

    Raises:
        BadRequest: if an item or a tool is of a kind that a chat does not have; `param` names it.
    """
    members = _members(body)
    chat: dict[str, Any] = {name: members[name] for name in _SAME if name in members}
    chat["messages"] = _messages(asked)
    if asked.stream:
        chat["stream"] = True
        chat["stream_options"] = {"include_usage": True}
    if asked.max_output_tokens is not None:
        chat["max_completion_tokens"] = asked.max_output_tokens
    if asked.top_logprobs is not None or "message.output_text.logprobs" in (asked.include or ()):
        chat["logprobs"] = True
        if asked.top_logprobs:
            chat["top_logprobs"] = asked.top_logprobs
    if asked.tools:
        chat["tools"] = [_tool(index, tool) for index, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        chat["tool_choice"] = _choice(asked.tool_choice)
    if asked.text is not None:
        chat.update(_form(asked.text))
    if asked.reasoning and asked.reasoning.get("effort") is not None:
        chat["reasoning_effort"] = asked.reasoning["effort"]
    chat.update({name: raw for name, raw in members.items() if name not in _OWN and name not in chat})
    return _encode(chat)


def _messages(asked: ResponsesEnvelope) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if asked.instructions:
        messages.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        messages.append({"role": "user", "content": asked.input})
        return messages
    for index, item in enumerate(asked.input):
        path = f"input[{index}]"
        if item.type == "message":
            messages.append(_message(item, path))
        elif item.type == "function_call":
            _add_call(messages, item, path)
        elif item.type == "function_call_output":
            output = item.output
            if output is None:
                raise _missing(f"{path}.output")
            content = output if isinstance(output, str) else _content(output, f"{path}.output")
            messages.append(
                {"role": "tool", "tool_call_id": _need(item.call_id, f"{path}.call_id"), "content": content}
            )
        elif item.type != "reasoning":  # which the model thinks anew
            raise _unsupported(f"{path}.type", f"Items of type {item.type!r} are not passed on.")
    if not messages:
        raise BadRequest("The input holds no message.", param="input")
    return messages


def _message(item: InputItem, path: str) -> dict[str, Any]:
    role = _need(item.role, f"{path}.role")
    content = item.content
    if content is None:
        raise _missing(f"{path}.content")
    said = content if isinstance(content, str) else _content(content, f"{path}.content")
    return {"role": role, "content": said}


def _add_call(messages: list[dict[str, Any]], item: InputItem, path: str) -> None:
    """Calls of one answer stand in one message of a chat."""
    call = {
        "id": _need(item.call_id, f"{path}.call_id"),
        "type": "function",
        "function": {
            "name": _need(item.name, f"{path}.name"),
            "arguments": _need(item.arguments, f"{path}.arguments"),
        },
    }
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _content(parts: list[InputPart], path: str) -> str | list[dict[str, Any]]:
    """One text if there is nothing else, which every engine takes; else the parts as a chat has them."""
    if len(parts) == 1 and parts[0].type in _TEXT_PARTS:
        return parts[0].text or ""
    return [_part(part, f"{path}[{index}]") for index, part in enumerate(parts)]


def _part(part: InputPart, path: str) -> dict[str, Any]:
    if part.type in _TEXT_PARTS:
        return {"type": "text", "text": part.text or ""}
    if part.type == "refusal":
        return {"type": "refusal", "refusal": part.refusal or ""}
    if part.type == "input_image":
        url = _need(part.image_url, f"{path}.image_url")
        return {"type": "image_url", "image_url": {"url": url, "detail": part.detail or "auto"}}
    if part.type == "input_file":
        file = {name: getattr(part, name) for name in ("file_id", "file_data", "filename") if getattr(part, name)}
        return {"type": "file", "file": file}
    if part.type == "input_audio":
        return {"type": "input_audio", "input_audio": _need(part.input_audio, f"{path}.input_audio")}
    raise _unsupported(f"{path}.type", f"Parts of type {part.type!r} are not passed on.")


def _tool(index: int, tool: Tool) -> dict[str, Any]:
    if tool.type != "function":
        raise _unsupported(f"tools[{index}].type", f"Only functions can be called here, not {tool.type!r}.")
    function: dict[str, Any] = {"name": _need(tool.name, f"tools[{index}].name")}
    for name in ("description", "parameters", "strict"):
        value = getattr(tool, name)
        if value is not None:
            function[name] = value
    return {"type": "function", "function": function}


def _choice(choice: str | dict[str, Any]) -> Any:
    if isinstance(choice, str):
        return choice
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": _need(choice.get("name"), "tool_choice.name")}}
    raise _unsupported("tool_choice", "It may be none, auto, required, or a function.")


def _form(text: TextOptions) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if text.verbosity is not None:
        chat["verbosity"] = text.verbosity
    form = text.format
    if form is None or form.get("type") == "text":
        return chat
    kind = form.get("type")
    if kind == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind == "json_object":
        chat["response_format"] = {"type": "json_object"}
    else:
        raise _unsupported("text.format.type", "It may be text, json_schema or json_object.")
    return chat


def _need(value: Value | None, path: str) -> Value:
    if value is None:
        raise _missing(path)
    return value


def _missing(path: str) -> BadRequest:
    return BadRequest(f"The field `{path}` is missing.", param=path, code="missing_required_parameter")


def _unsupported(param: str, why: str) -> BadRequest:
    return BadRequest(
        f"The field `{param}` asks for what is not done here. {why}", param=param, code="unsupported_parameter"
    )


_NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
}


def param_of(chat_param: str) -> str:
    """What a field of the chat is called in the request that it was made from."""
    return _NAMES.get(chat_param.partition("[")[0].partition(".")[0], chat_param)
