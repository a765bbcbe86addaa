"""Whether the objects of a body name each member once, told at a glance where that can be."""

from typing import Any

import msgspec

_decode_any = msgspec.json.Decoder().decode


def plainly_distinct(body: bytes) -> bool:
    """Whether it is certain at a glance that no member is named twice; False says nothing.

    Without a backslash every quote begins or ends a string. Of a member that is named twice one is lost in decoding, and with it two
    quotes at least: so there is none if the strings that are left, names among them, account for all quotes.
    """
    if b"\\" in body:
        return False
    members: dict[str, Any] = _decode_any(body)
    strings = len(members)
    for value in members.values():
        kind = type(value)
        if kind is str:
            strings += 1
        elif kind is list:
            for item in value:
                if type(item) is dict:
                    strings += len(item)
                    for inner in item.values():
                        if type(inner) is str:
                            strings += 1
                        elif type(inner) in {list, dict}:
                            return False
                elif type(item) is str:
                    strings += 1
                elif type(item) in {list, dict}:
                    return False
        elif kind is dict:
            return False
    return body.count(b'"') == 2 * strings
