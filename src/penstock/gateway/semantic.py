"""Step 6 where it takes time: what other gateways have kept, and questions that mean the same as one that was answered.

An answer is given to another question only if their vectors are near (the policy's threshold) and both state the same facts
(`routing.agreement`). Everything that goes wrong here is a miss: the request then goes its way.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from array import array

import msgspec
from blake3 import blake3

from penstock.core.errors import PenstockError
from penstock.gateway.cache import LABELS
from penstock.gateway.call import Call
from penstock.gateway.entry import Entry
from penstock.gateway.index import SemanticEntry
from penstock.gateway.recall import source_of, take
from penstock.gateway.shelves import Question, question
from penstock.net.client import parse_origin
from penstock.routing.agreement import Marks, marks
from penstock.wire.question import asked

_LONGEST = 2000  # characters; longer questions are not compared by meaning
_MOST_BYTES = 1 << 20  # of an embedder's answer


class Sought(msgspec.Struct, kw_only=True, eq=False):
    """A question for which nothing was found yet: its shelf, and what is kept there once it is answered."""

    shelf: bytes
    asked: Question | None = None


class SharedRow(msgspec.Struct, frozen=True, array_like=True):
    """A kept question as gateways tell each other of it."""

    key: bytes
    vector: bytes  # float32, little-endian
    marks: Marks
    expires: float


class _Vector(msgspec.Struct, frozen=True):
    embedding: str | list[float]


class _Vectors(msgspec.Struct, frozen=True):
    data: list[_Vector]


_decode_vectors = msgspec.json.Decoder(_Vectors).decode
_decode_row = msgspec.msgpack.Decoder(SharedRow).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_encode = msgspec.msgpack.Encoder().encode


async def seek(call: Call) -> bool:
    """Looks further than this worker's own answers to the very same question; whether an answer is at hand, in `call.recalled`."""
    route, caller, gateway = call.route, call.caller, call.gateway
    if route is None or caller is None or route.cache is None:
        return False
    text = _place(call) if route.semantic is not None else ""
    if await _fetched(call):
        return True
    if route.semantic is None or call.sought is None:
        return False
    began = time.monotonic()
    vector = await _embedded(call, route.semantic, text)
    gateway.meters.embedding.observe(time.monotonic() - began)
    call.sought.asked = question(vector, marks(text, route.semantic.same)) if vector is not None else None
    if call.sought.asked is None:
        return _ended(call, "failed" if vector is None else "far")
    return await _found(call, call.sought.asked, route.semantic)


def keep(call: Call, entry: Entry) -> None:
    """Keeps what was answered, for other questions and other gateways."""
    route, gateway, caller = call.route, call.gateway, call.caller
    if route is None or caller is None or route.cache is None:
        return
    sought, row = call.sought, b""
    if sought is not None and sought.asked is not None and route.semantic is not None and entry.finish == "stop":
        kept = sought.asked
        gateway.shelves.put(sought.shelf, call.cache_key, kept, entry.expires, route.semantic.policy.entries)
        row = _encode(SharedRow(call.cache_key, kept.vector.tobytes(), kept.marks, entry.expires))
    if gateway.shared is not None and route.cache.shared:
        shelf = sought.shelf if sought is not None and row else b""
        gateway.shared.put(caller.tenant.name, call.cache_key, _encode(entry), entry.expires - call.at, shelf, row)


def _place(call: Call) -> str:
    """Finds the question's shelf, into `call.sought`; its text, or "" if it is none that can be compared."""
    found = asked(call.body, LABELS, chat=call.operation != "completions") if call.operation != "embeddings" else None
    if found is None or not found.text.strip() or len(found.text) > _LONGEST:
        return ""
    caller = call.caller
    if caller is None:
        return ""
    policy = call.rules.mark if call.rules is not None else ""
    names = (caller.tenant.name, source_of(call), policy, call.operation, "s" if call.stream else "j", "meaning")
    head = "\0".join(names).encode()
    call.sought = Sought(shelf=blake3(len(head).to_bytes(4, "little") + head + found.context).digest())
    return found.text


async def _fetched(call: Call) -> bool:
    """Whether another gateway has kept the answer to the very question; takes in what others keep on its shelf, too."""
    gateway, route, caller, sought = call.gateway, call.route, call.caller, call.sought
    if gateway.shared is None or route is None or caller is None or route.cache is None or not route.cache.shared:
        return False
    shelf = gateway.shelves.opened(sought.shelf) if sought is not None else None
    value, rows, after = await gateway.shared.fetch(
        caller.tenant.name,
        call.cache_key,
        sought.shelf if sought is not None else b"",
        shelf.after if shelf is not None else "",
    )
    if shelf is not None and sought is not None and route.semantic is not None:
        shelf.after = after
        for data in rows:
            _take_in(call, sought.shelf, data, route.semantic)
    return value is not None and _recalled(call, value, call.cache_key, "hit")


def _take_in(call: Call, shelf: bytes, data: bytes, semantic: SemanticEntry) -> None:
    try:
        row = _decode_row(data)
        kept = question(array("f", row.vector), row.marks)
    except (msgspec.DecodeError, ValueError):
        return
    if kept is not None and row.expires > call.at:
        call.gateway.shelves.put(shelf, row.key, kept, row.expires, semantic.policy.entries)


def _recalled(call: Call, value: bytes, key: bytes, how: str) -> bool:
    try:
        entry = _decode_entry(value)
    except msgspec.DecodeError:
        return False
    whose = call.caller.tenant.name if call.caller is not None else ""
    if entry.expires <= call.at or entry.stream is not call.stream or entry.tenant != whose:
        return False
    call.gateway.cache.put(key, entry)
    take(call, entry)
    call.cache = "semantic" if how == "semantic" else "hit"
    return True


async def _found(call: Call, mine: Question, semantic: SemanticEntry) -> bool:
    gateway, sought, caller = call.gateway, call.sought, call.caller
    shelf = gateway.shelves.get(sought.shelf) if sought is not None else None
    if shelf is None or sought is None or caller is None:
        return _ended(call, "empty")
    while True:
        found, how = shelf.find(mine, semantic.policy.threshold, call.at)
        if found is None:
            return _ended(call, how)
        entry = gateway.cache.get(found.key, call.at)
        if entry is None and gateway.shared is not None and call.route is not None and call.route.cache is not None:
            value = await gateway.shared.value(caller.tenant.name, found.key) if call.route.cache.shared else None
            if value is not None and _recalled(call, value, found.key, "semantic"):
                entry = call.recalled
        if entry is not None:
            take(call, entry)
            call.cache = "semantic"
            call.notes += b"x-penstock-similarity: %.4f\r\n" % found.similarity
            return _ended(call, "hit")
        gateway.shelves.drop(sought.shelf, found.key)  # its answer had to make room


def _ended(call: Call, how: str) -> bool:
    call.gateway.meters.cell("penstock_semantic_total", how).value += 1
    return how == "hit"


async def _embedded(call: Call, semantic: SemanticEntry, text: str) -> array[float] | None:
    """The text's vector, asked of the policy's pool; None if it does not come in time."""
    gateway, entry = call.gateway, semantic.entry
    state = gateway.pools.get(entry.pool.name)
    now = time.monotonic()
    if state is None or now < semantic.rests_until:
        return None
    member = state.balancer.take(now, gateway.draw(), (), [], "")
    if member is None:
        return None
    origin = entry.origins.get(member.replica.id)
    if origin is None or origin.key != member.replica.url:
        origin = parse_origin(member.replica.url)
    body = msgspec.json.encode(
        {"model": entry.pool.model or entry.pool.name, "input": text, "encoding_format": "base64"}
    )
    lines = b"content-type: application/json\r\nx-penstock-request-id: %b\r\n" % call.id.encode()
    response, ok, vector = None, None, None
    try:
        async with asyncio.timeout(semantic.policy.timeout_s):
            response = await gateway.client.request(origin, b"POST", b"/v1/embeddings", (), body, entry.timeouts, lines)
            data = await response.read(_MOST_BYTES)
        ok = response.status < 500
        vector = _vector(data) if response.status == 200 else None
    except TimeoutError:
        ok = False
    except PenstockError:
        ok = False
    finally:
        if response is not None:
            response.abort()
        now = time.monotonic()
        state.balancer.ended(member, ok, now)
        if ok is not None:
            semantic.told(now, ok=ok)
    return vector


def _vector(data: bytes) -> array[float] | None:
    try:
        told = _decode_vectors(data).data[0].embedding
        return array("f", base64.b64decode(told, validate=True) if isinstance(told, str) else told)
    except (msgspec.DecodeError, binascii.Error, ValueError, IndexError, OverflowError):
        return None
