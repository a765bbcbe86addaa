"""An answer from the cache, given as it was given first: JSON as JSON, a stream as events."""

import time

from penstock.gateway.call import Call
from penstock.gateway.stream import begin
from penstock.wire.sse import DONE

_PIECE_BYTES = 16384


async def replay(call: Call) -> None:
    """Gives `call.recalled`; a slow reader is waited for."""
    entry = call.recalled
    if entry is None:
        return
    call.finish = entry.finish
    call.chunks = entry.chunks
    if not entry.stream:
        call.status = 200
        call.first_ns = call.last_ns = time.monotonic_ns() - call.started_ns
        call.tail = entry.body
        return
    begin(call)
    reply = call.reply
    body = entry.body
    for start in range(0, len(body), _PIECE_BYTES):
        reply.write(body[start : start + _PIECE_BYTES])
        if reply.blocked:
            await reply.drain()
    if call.envelope.wants_usage and entry.usage_event:
        reply.write(entry.usage_event)
    call.last_ns = time.monotonic_ns() - call.started_ns
    call.tail = DONE
