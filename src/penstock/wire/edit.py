"""Changes to a JSON object's bytes that leave every other member as it was written."""

from typing import Any

import msgspec

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def prepend(body: bytes, member: bytes) -> bytes:
    """`body`, an object with at least one member, with `member` (`"name":value`) before the others. Nothing is decoded."""
    brace = body.index(b"{") + 1
    return b"%b%b,%b" % (body[:brace], member, body[brace:])


def replaced(body: bytes, changes: dict[str, Any]) -> bytes:
    """`body` with the members of `changes` set, new ones at the end."""
    members: dict[str, Any] = _members(body)
    members.update(changes)
    return _encode(members)


def without(body: bytes, name: str) -> bytes:
    """`body` without the member `name`, if it has one."""
    members = _members(body)
    members.pop(name, None)
    return _encode(members)


def with_system(body: bytes, system: str) -> bytes:
    """A chat's `body` whose first message is the system message `system`, in place of one that is there."""
    members: dict[str, Any] = _members(body)
    messages: list[Any] = list(_items(members["messages"]))
    first = msgspec.json.decode(messages[0])
    if isinstance(first, dict) and first.get("role") in {"system", "developer"}:
        del messages[0]
    members["messages"] = [{"role": "system", "content": system}, *messages]
    return _encode(members)


def canonical(body: bytes, without: frozenset[str]) -> bytes:
    """The members of `body` but those named in `without`, sorted by name: equal for equal questions."""
    members = _members(body)
    for name in without:
        members.pop(name, None)
    return _encode_sorted(members)
