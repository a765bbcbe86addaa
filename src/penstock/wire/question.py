"""The last thing that a user says, apart from all that it is said in."""

from typing import Any

import msgspec

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    text: str


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    content: str | list[_Part]
    name: str | None = None


_message = msgspec.json.Decoder(_Message).decode
_text = msgspec.json.Decoder(str).decode


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request taken apart.

    Attributes:
        text: the last user's message, or the prompt of a completion.
        context: everything else, as bytes that are equal for equal contexts: earlier turns, system prompt, parameters.
    """

    text: str
    context: bytes


def asked(body: bytes, without: frozenset[str], *, chat: bool) -> Asked | None:
    """The question in `body`, a valid request; the members named in `without` belong to neither part.

    None where the last message is not a user's, or has more than one text.
    """
    members: dict[str, Any] = _members(body)
    for name in without & members.keys():
        del members[name]
    try:
        if chat:
            messages = _items(members["messages"])
            last = _message(messages.pop())
            if last.role != "user":
                return None
            content = last.content
            if isinstance(content, list):
                if len(content) != 1 or content[0].type != "text":
                    return None
                content = content[0].text
            members["messages"] = [messages, last.name]
        else:
            content = _text(members.pop("prompt"))
    except (msgspec.ValidationError, KeyError, IndexError):
        return None
    return Asked(text=content, context=_encode_sorted(members))
