"""Whether a request offers tools: what it is answered may then be an act, not only a text."""

from typing import Any

import msgspec


class _Offer(msgspec.Struct, frozen=True):
    tools: Any = None
    functions: Any = None  # as before tools


_decode = msgspec.json.Decoder(_Offer).decode


def offers_tools(body: bytes) -> bool:
    """Whether `body`, a JSON object, names at least one tool or function."""
    if b"tools" not in body and b"functions" not in body and b"\\u" not in body:
        return False
    offer = _decode(body)
    return bool(offer.tools or offer.functions)
