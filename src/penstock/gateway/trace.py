"""What a client says of where its request belongs, passed on to the engine: W3C Trace Context, Baggage, and a name of its own for the request.

Sources: w3.org/TR/trace-context, sections 3.2 to 3.5 and 4.3; w3.org/TR/baggage, section 3.3.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.gateway.call import Call

Headers = dict[bytes, bytes]

_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_VERSION = b"00"  # the one that is spoken
_SAMPLED, _RANDOM = 0x01, 0x02  # the flags that it has
_VISIBLE = re.compile(rb"[\t\x20-\x7e]+")
_NAME = re.compile(rb"[A-Za-z0-9._:/+=@#-]{1,128}")
_STATE_BYTES, _STATE_MEMBERS = 4096, 32
_BAGGAGE_BYTES, _BAGGAGE_MEMBERS = 8192, 180


def next_parent(received: bytes, span: bytes) -> str:
    """The `traceparent` to send on: the caller's trace and flags with `span` (8 random bytes); "" if it sent no valid one.

    One of a later version is read by the rules of this one, and goes on as one of this.
    """
    match = _PARENT.fullmatch(received)
    if match is None:
        return ""
    version, trace, flags, rest = match.groups()
    if version == _VERSION:
        if rest:
            return ""
        kept = int(flags, 16) & (_SAMPLED | _RANDOM)
    else:
        kept = int(flags, 16) & _SAMPLED
    return f"00-{trace.decode()}-{span.hex()}-{kept:02x}"


def client_name(headers: Headers) -> bytes:
    """The client's own name for its request, `x-request-id`; b"" if it gave none, or one that is too long or no plain word."""
    name = headers.get(b"x-request-id", b"")
    return name if _NAME.fullmatch(name) else b""


def name_line(headers: Headers) -> bytes:
    """The field that gives the client its name back, or b""."""
    name = client_name(headers) if b"x-request-id" in headers else b""
    return b"x-request-id: %b\r\n" % name if name else b""


def carry(call: Call) -> None:
    """Finds what is passed on: `call.trace` for the record, `call.onward` for the engine, and the client's name for the client."""
    headers = call.request.headers
    onward = b""
    parent = headers.get(b"traceparent")
    if parent is not None:
        call.trace = next_parent(parent, os.urandom(8))
        if call.trace:
            call.parent = parent[36:52].decode()
            onward = b"traceparent: %b\r\n" % call.trace.encode()
            onward += _list(headers, b"tracestate", _STATE_BYTES, _STATE_MEMBERS)
    onward += _list(headers, b"baggage", _BAGGAGE_BYTES, _BAGGAGE_MEMBERS)
    name = client_name(headers)
    if name:
        # Not as x-request-id: engines take that for the request's identity, and two tenants may send the same.
        onward += b"x-client-request-id: %b\r\n" % name
        call.notes += b"x-request-id: %b\r\n" % name
    call.onward = onward


def _list(headers: Headers, field: bytes, most_bytes: int, most_members: int) -> bytes:
    """`field` as it came, if it is within what its specification asks to be carried; half of it would mean something else."""
    value = headers.get(field)
    if not value or len(value) > most_bytes or value.count(b",") >= most_members or not _VISIBLE.fullmatch(value):
        return b""
    return b"%b: %b\r\n" % (field, value)
