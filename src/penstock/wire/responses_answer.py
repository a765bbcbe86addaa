"""Answers of chat completions, said as OpenAI's Responses API says them: whole, and as a stream of typed events."""

from typing import Any

import msgspec

from penstock.wire.responses import ResponsesEnvelope
from penstock.wire.sse import event_data, split_events

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Object = dict[str, Any]
# A text of a chat's message or delta: the item that it belongs to, the part's type, the part's field, the events' stem.
_TEXTS = {
    "reasoning_content": ("reasoning", "reasoning_text", "text", "response.reasoning_text"),
    "content": ("message", "output_text", "text", "response.output_text"),
    "refusal": ("message", "refusal", "refusal", "response.refusal"),
}
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "temperature",
    "text",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
)


def response_head(asked: ResponsesEnvelope, body: bytes, *, name: str, at: float) -> Object:
    """The response object before anything is answered, which tells what was asked for.

    Args:
        asked: the request.
        body: its bytes.
        name: the id, without its prefix.
        at: when it came, Unix seconds.
    """
    members = _members(body)
    echo: Object = {field: members[field] for field in _ECHOED if field in members}
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": int(at),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": (asked.reasoning or {}).get("effort"), "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": asked.tool_choice if asked.tool_choice is not None else "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
        **echo,
    }


def whole_response(head: Object, answer: bytes) -> bytes:
    """The response that a chat completion's `answer` makes of `head`.

    Raises:
        ValueError: if it is no JSON object.
    """
    chat = _decode(answer)
    choice = _first(chat)
    message = _object(choice.get("message"))
    items = _Items(head["id"].removeprefix("resp_"))
    for field in _TEXTS:
        text = message.get(field)
        if isinstance(text, str) and text:
            part = items.part(field)
            part["content"][-1][_TEXTS[field][2]] = text
            if field == "content":
                part["content"][-1]["logprobs"] = _logprobs(choice)
    for call in _list(message.get("tool_calls")):
        item = items.call(_object(call))
        item["arguments"] = _text(_object(_object(call).get("function")).get("arguments"))
    return _encode(_ended(head, items.all, _text(choice.get("finish_reason")), chat.get("usage")))


class ResponseStream:
    """Turns the events of a chat completion's stream into those of a response, each with the next sequence number.

    Attributes:
        over: the last event has been told; there is nothing more to say.
    """

    def __init__(self, head: Object) -> None:
        self.over = False
        self._head = head
        self._items = _Items(head["id"].removeprefix("resp_"))
        self._text: tuple[Object, str] | None = None  # the item that is being said, and the chat's field for it
        self._pieces: list[str] = []  # of its last part
        self._calls: dict[int, tuple[Object, list[str]]] = {}  # by the chat's index
        self._finish = ""
        self._usage: Any = None
        self._number = 0

    def take(self, data: bytes) -> bytes:
        """The events to tell for whole events of a chat's stream.

        Raises:
            ValueError: if one of them is no JSON object.
        """
        out: list[bytes] = []
        if self._number == 0:
            self._tell(out, "response.created", response=self._head)
            self._tell(out, "response.in_progress", response=self._head)
        for event in split_events(data):
            payload = event_data(event)
            if self.over or not payload:
                continue
            if payload == b"[DONE]":
                self._end(out)
            else:
                self._chunk(out, _decode(payload))
        return b"".join(out)

    def _chunk(self, out: list[bytes], chunk: Object) -> None:
        if chunk.get("error"):
            self._fail(out, chunk["error"])
            return
        self._usage = chunk.get("usage") or self._usage
        choice = _first(chunk)
        delta = _object(choice.get("delta"))
        for field in _TEXTS:
            text = delta.get(field)
            if isinstance(text, str) and text:
                self._say(out, field, text, _logprobs(choice) if field == "content" else [])
        for call in _list(delta.get("tool_calls")):
            self._call(out, _object(call))
        self._finish = _text(choice.get("finish_reason")) or self._finish

    def _say(self, out: list[bytes], field: str, text: str, logprobs: list[Any]) -> None:
        kind, _, _, stem = _TEXTS[field]
        if self._text is None or self._text[1] != field:
            self._close_text(out, whole=self._text is None or self._text[0]["type"] != kind)
            known = len(self._items.all)
            item = self._items.part(field)
            if len(self._items.all) > known:
                self._tell(out, "response.output_item.added", **self._at(item), item={**item, "content": []})
            self._text = (item, field)
            self._tell(out, "response.content_part.added", **self._in(item), part=item["content"][-1])
        item = self._text[0]
        self._pieces.append(text)
        more: Object = {}
        if field == "content":
            item["content"][-1]["logprobs"].extend(logprobs)
            more["logprobs"] = logprobs
        self._tell(out, f"{stem}.delta", **self._in(item), delta=text, **more)

    def _close_text(self, out: list[bytes], *, whole: bool, status: str = "completed") -> None:
        """The text that is being said ends; with `whole` so does its item."""
        if self._text is None:
            return
        item, field = self._text
        part = item["content"][-1]
        _, _, member, stem = _TEXTS[field]
        if self._pieces:
            part[member] = "".join(self._pieces)
            self._pieces = []
            more = {"logprobs": part["logprobs"]} if field == "content" else {}
            self._tell(out, f"{stem}.done", **self._in(item), **{member: part[member]}, **more)
            self._tell(out, "response.content_part.done", **self._in(item), part=part)
        if whole:
            item["status"] = status
            self._tell(out, "response.output_item.done", **self._at(item), item=item)
            self._text = None

    def _call(self, out: list[bytes], call: Object) -> None:
        index = _count(call.get("index", 0))
        function = _object(call.get("function"))
        known = self._calls.get(index)
        if known is None:
            self._close_text(out, whole=True)
            item = self._items.call(call)
            known = self._calls[index] = (item, [])
            self._tell(out, "response.output_item.added", **self._at(item), item={**item, "arguments": ""})
        item, pieces = known
        piece = _text(function.get("arguments"))
        if piece:
            pieces.append(piece)
            self._tell(out, "response.function_call_arguments.delta", **self._at(item), item_id=item["id"], delta=piece)

    def _end(self, out: list[bytes]) -> None:
        status = "incomplete" if self._finish in _REASONS else "completed"
        self._close_text(out, whole=True, status=status)
        for item, pieces in self._calls.values():
            item["arguments"] = "".join(pieces)
            item["status"] = status
            done = {"item_id": item["id"], "name": item["name"], "arguments": item["arguments"]}
            self._tell(out, "response.function_call_arguments.done", **self._at(item), **done)
            self._tell(out, "response.output_item.done", **self._at(item), item=item)
        response = _ended(self._head, self._items.all, self._finish, self._usage)
        self._tell(out, f"response.{response['status']}", response=response)
        self.over = True

    def _fail(self, out: list[bytes], error: Any) -> None:
        """What was said stays said; that it is not all is told, and `response.completed` never follows."""
        if self._text is not None and self._pieces:
            item, field = self._text
            item["content"][-1][_TEXTS[field][2]] = "".join(self._pieces)
        for item, pieces in self._calls.values():
            item["arguments"] = "".join(pieces)
        for item in self._items.all:
            item["status"] = "incomplete" if item["status"] == "in_progress" else item["status"]
        told = _object(error)
        reason = {
            "code": _text(told.get("code")) or "server_error",
            "message": _text(told.get("message")) or (error if isinstance(error, str) else "The engine broke off."),
        }
        response = {**self._head, "status": "failed", "error": reason, "output": self._items.all}
        self._tell(out, "response.failed", response=response)
        self.over = True

    def _at(self, item: Object) -> Object:
        return {"output_index": self._items.all.index(item)}

    def _in(self, item: Object) -> Object:
        return {**self._at(item), "item_id": item["id"], "content_index": len(item["content"]) - 1}

    def _tell(self, out: list[bytes], kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(event)))


class _Items:
    """The items of `output`, made in the order in which they are said."""

    def __init__(self, name: str) -> None:
        self.all: list[Object] = []
        self._name = name

    def part(self, field: str) -> Object:
        """The item that a text of the chat's `field` goes into, with a new, empty part at its end."""
        kind, part, member, _ = _TEXTS[field]
        if not self.all or self.all[-1]["type"] != kind:
            more: Object = {"role": "assistant"} if kind == "message" else {"summary": []}
            self._add(kind, {**more, "content": []})
        item = self.all[-1]
        made: Object = {"type": part, member: ""}
        if part == "output_text":
            made.update(annotations=[], logprobs=[])
        item["content"].append(made)
        return item

    def call(self, call: Object) -> Object:
        """A new item for a call of a function."""
        identity, name = _text(call.get("id")), _text(_object(call.get("function")).get("name"))
        item = self._add("function_call", {"call_id": identity, "name": name, "arguments": ""})
        item["call_id"] = identity or item["id"].replace("fc_", "call_", 1)
        return item

    def _add(self, kind: str, fields: Object) -> Object:
        identity = f"{_PREFIXES[kind]}_{self._name}{len(self.all)}"
        item: Object = {"type": kind, "id": identity, "status": "in_progress", **fields}
        self.all.append(item)
        return item


def _ended(head: Object, items: list[Object], finish: str, usage: Any) -> Object:
    reason = _REASONS.get(finish)
    status = "incomplete" if reason else "completed"
    for item in items:
        item["status"] = status if item is items[-1] else "completed"
    return {
        **head,
        "status": status,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": items,
        "usage": _usage(_object(usage)),
    }


def _usage(chat: Object) -> Object | None:
    if not chat:
        return None
    prompt, completion = _count(chat.get("prompt_tokens")), _count(chat.get("completion_tokens"))
    cached = _count(_object(chat.get("prompt_tokens_details")).get("cached_tokens"))
    thought = _count(_object(chat.get("completion_tokens_details")).get("reasoning_tokens"))
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + completion,
    }


def _first(chat: Object) -> Object:
    for choice in _list(chat.get("choices")):
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}


def _logprobs(choice: Object) -> list[Any]:
    return _list(_object(choice.get("logprobs")).get("content"))


def _object(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
