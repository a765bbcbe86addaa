"""W3C Trace Context: the caller's `traceparent`, passed on with a span of our own (w3.org/TR/trace-context, section 3.2)."""

import re

_PARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")


def next_parent(received: bytes | None, span: bytes) -> str:
    """The `traceparent` to send on: the caller's trace and flags with `span` (8 random bytes); "" if it sent no valid one."""
    if received is None:
        return ""
    match = _PARENT.fullmatch(received.strip())
    if match is None:
        return ""
    return f"00-{match[1].decode()}-{span.hex()}-{match[2].decode()}"
