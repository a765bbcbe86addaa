"""An answer that is kept."""

import msgspec

from penstock.core.exchange import Usage


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: a JSON body, or all events of a stream but the usage chunk and `[DONE]`."""

    body: bytes
    usage_event: bytes = b""
    stream: bool
    usage: Usage
    finish: str
    chunks: int
    expires: float
    escalated: bool = False  # by the second model of a cascade
    tenant: str = ""
