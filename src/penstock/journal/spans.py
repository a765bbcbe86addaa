"""The spans of one exchange: the request as the gateway served it, its phases, the model's call among them, and the engine's phases within that.

Names are those of OpenTelemetry's conventions for HTTP servers and for generative AI; what has none there begins with `penstock.`. All ids follow from
the exchange, so that a repeat makes the same spans. Times are Unix nanoseconds.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec
from blake3 import blake3

from penstock.core.exchange import OPERATIONS, PROVIDER, Exchange
from penstock.journal.sampling import failed

Value = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, Value]

ROUTES = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
}
_PARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_SPAN = re.compile("[0-9a-f]{16}")
_FAILED_TRIES = frozenset({"failed", "broken"})


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at one moment of a span."""

    name: str
    at_ns: int
    attributes: Attributes


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span; `failed` is its status, `problem` the code of what went wrong."""

    trace: bytes  # 16 bytes
    id: bytes  # 8 bytes
    parent: bytes  # 8 bytes, or none
    remote: bool  # the parent is the caller's
    name: str
    kind: Literal["server", "client", "internal"]
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: tuple[Event, ...] = ()
    failed: bool = False
    problem: str = ""


def trace_of(exchange: Exchange) -> bytes:
    """The id of its trace: the caller's, or one made from the exchange's id."""
    told = _PARENT.fullmatch(exchange.trace)
    if told is not None:
        return bytes.fromhex(told[1])
    return _made(exchange.id, "trace", 16)


def span_of(exchange: Exchange) -> bytes:
    """The id of the span of the whole request, which the engine was told as its parent if the caller traces."""
    told = _PARENT.fullmatch(exchange.trace)
    if told is not None:
        return bytes.fromhex(told[2])
    return _made(exchange.id, "request", 8)


def parent_of(exchange: Exchange) -> bytes:
    """The id of the caller's span, or none."""
    return bytes.fromhex(exchange.parent) if _SPAN.fullmatch(exchange.parent) else b""


def spans_of(exchange: Exchange) -> tuple[Span, ...]:
    """The request's span first, then those of the phases that it reached, in order and without gaps; then what lies within these.

    That is, below the model's call, the phases of the engine; below the request, replicas that were asked in vain.
    """
    trace, root, parent = trace_of(exchange), span_of(exchange), parent_of(exchange)
    start = round(exchange.at * 1e6) * 1000
    marks = tuple(_marks(exchange))
    end = start + max((until for _, _, until in marks), default=0)
    wrong = failed(exchange)
    problem = _problem(exchange)
    request = Span(
        trace=trace,
        id=root,
        parent=parent,
        remote=bool(parent),
        name=f"POST {ROUTES[exchange.operation]}",
        kind="server",
        start_ns=start,
        end_ns=end,
        attributes=_request_attributes(exchange),
        events=_findings(exchange, start, end),
        failed=wrong,
        problem=problem if wrong else "",
    )
    phases: list[Span] = []
    for name, since, until in marks:
        asked = name == "model"
        phases.append(
            Span(
                trace=trace,
                id=_made(exchange.id, name, 8),
                parent=root,
                remote=False,
                name=f"{OPERATIONS[exchange.operation]} {exchange.model}" if asked else name,
                kind="client" if asked else "internal",
                start_ns=start + since,
                end_ns=start + until,
                attributes=_model_attributes(exchange) if asked else {},
                events=_first_token(exchange, start) if asked else (),
                failed=wrong and asked,
                problem=problem if wrong and asked else "",
            )
        )
    call = next((span for span in phases if span.kind == "client"), None)
    engine = _engine(exchange, call, start) if call is not None and exchange.engine is not None else ()
    return (request, *phases, *engine, *[_try(exchange, request, at) for at in range(len(exchange.tries))])


def _engine(exchange: Exchange, call: Span, start: int) -> Iterator[Span]:
    """The phases of the engine, below the model's call."""
    for placed in exchange.engine_placed():
        yield Span(
            trace=call.trace,
            id=_made(exchange.id, f"engine {placed.name}", 8),
            parent=call.id,
            remote=False,
            name=f"engine {placed.name}",
            kind="internal",
            start_ns=start + placed.begin,
            end_ns=start + placed.end,
            attributes=_engine_attributes(exchange, placed.name),
        )


def _engine_attributes(exchange: Exchange, name: str) -> Attributes:
    usage, tried = exchange.usage, exchange.tried
    told: Attributes = {
        "gen_ai.operation.name": OPERATIONS[exchange.operation],
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.response.model": exchange.version,
        "penstock.replica": exchange.replica,
    }
    if name == "prefill":
        told["gen_ai.usage.input_tokens"] = max(0, usage.prompt - tried.prompt)
        told["gen_ai.usage.cache_read.input_tokens"] = max(0, usage.cached - tried.cached)
    elif name == "decode":
        told["gen_ai.usage.output_tokens"] = max(0, usage.completion - tried.completion)
    return {name: value for name, value in told.items() if value not in {"", 0}}


def _try(exchange: Exchange, request: Span, at: int) -> Span:
    """A replica that was asked in vain; a failure, unless another one was only quicker or said something more convincing."""
    one = exchange.tries[at]
    begin = min(request.start_ns + max(0, one.begin), request.end_ns)
    told: Attributes = {
        "gen_ai.operation.name": OPERATIONS[exchange.operation],
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": exchange.model,
        "error.type": one.error,
        "penstock.try": one.how,
        "penstock.pool": one.pool,
        "penstock.replica": one.replica,
    }
    wrong = one.how in _FAILED_TRIES
    return Span(
        trace=request.trace,
        id=_made(exchange.id, f"try {at}", 8),
        parent=request.id,
        remote=False,
        name=f"{OPERATIONS[exchange.operation]} {exchange.model}",
        kind="client",
        start_ns=begin,
        end_ns=max(begin, min(request.start_ns + one.end, request.end_ns)),
        attributes={name: value for name, value in told.items() if value != ""},
        failed=wrong,
        problem=one.error if wrong else "",
    )


def _made(name: str, part: str, size: int) -> bytes:
    digest: bytes = blake3(f"{part}\0{name}".encode()).digest(length=size)
    return digest if any(digest) else b"\x01" * size  # an id of noughts is none


def _marks(exchange: Exchange) -> Iterator[tuple[str, int, int]]:
    """Name, begin and end of each phase that was reached, in nanoseconds since the request's first byte."""
    phases = exchange.phases
    answered = max(phases.first_token, phases.last_token)
    steps = (
        ("decode", phases.decoded),
        ("admit", phases.admitted),
        ("dispatch", phases.dispatched),
        ("model" if phases.dispatched else "reply", answered or (phases.done if phases.dispatched else 0)),
        ("settle", phases.done),
    )
    since = 0
    for name, mark in steps:
        if mark > since:
            yield name, since, mark
            since = mark


def _problem(exchange: Exchange) -> str:
    if exchange.error:
        return exchange.error
    if failed(exchange):
        return exchange.outcome if exchange.outcome != "ok" else str(exchange.status)
    return str(exchange.status) if exchange.status >= 400 else ""


def _request_attributes(exchange: Exchange) -> Attributes:
    told: Attributes = {
        "http.request.method": "POST",
        "http.route": ROUTES[exchange.operation],
        "http.response.status_code": exchange.status,
        "error.type": _problem(exchange),
        "gen_ai.operation.name": OPERATIONS[exchange.operation],
        "gen_ai.request.model": exchange.model,
        "gen_ai.conversation.id": exchange.session,
        "user.hash": exchange.user,
        "penstock.request.id": exchange.id,
        "penstock.outcome": exchange.outcome,
        "penstock.tenant": exchange.tenant,
        "penstock.key": exchange.key,
        "penstock.route": exchange.route,
        "penstock.experiment": exchange.experiment,
        "penstock.arm": exchange.arm,
        "penstock.context": exchange.context,
        "penstock.copy_of": exchange.pair.of if exchange.pair is not None else "",
        "penstock.beside": exchange.pair.arm if exchange.pair is not None else "",
        "penstock.cache": exchange.cache,
        "penstock.snapshot.generation": exchange.generation,
        "penstock.trimmed": exchange.trimmed,
    }
    kept = {name: value for name, value in told.items() if value not in {"", 0}}
    if exchange.cost_nanousd:
        kept["penstock.cost.usd"] = exchange.cost_nanousd * 1e-9
    return kept


def _model_attributes(exchange: Exchange) -> Attributes:
    usage, phases = exchange.usage, exchange.phases
    told: Attributes = {
        "gen_ai.operation.name": OPERATIONS[exchange.operation],
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": exchange.model,
        "gen_ai.response.model": exchange.version,
        "gen_ai.usage.input_tokens": usage.prompt,
        "gen_ai.usage.output_tokens": usage.completion,
        "gen_ai.usage.cache_read.input_tokens": usage.cached,
        "error.type": _problem(exchange) if failed(exchange) else "",
        "penstock.version.digest": exchange.digest,
        "penstock.pool": exchange.pool,
        "penstock.replica": exchange.replica,
        "penstock.attempts": exchange.attempts,
        "penstock.resumed": exchange.resumed,
        "penstock.chunks": exchange.chunks,
    }
    kept = {name: value for name, value in told.items() if value not in {"", 0}}
    kept["gen_ai.request.stream"] = exchange.stream
    if exchange.finish:
        kept["gen_ai.response.finish_reasons"] = (exchange.finish,)
    if exchange.stream and phases.first_token > phases.dispatched:
        kept["gen_ai.response.time_to_first_chunk"] = (phases.first_token - phases.dispatched) * 1e-9
    for name, happened in (
        ("penstock.hedged", exchange.hedged),
        ("penstock.fallback", exchange.fallback),
        ("penstock.escalated", exchange.escalated),
    ):
        if happened:
            kept[name] = True
    return kept


def _first_token(exchange: Exchange, start: int) -> tuple[Event, ...]:
    first = exchange.phases.first_token
    return (Event(name="first token", at_ns=start + first, attributes={}),) if first else ()


def _findings(exchange: Exchange, start: int, end: int) -> tuple[Event, ...]:
    """What content rules found; inputs are looked at before a request is admitted, outputs while it is answered."""
    before = start + (exchange.phases.admitted or exchange.phases.decoded)
    return tuple(
        Event(
            name="penstock.finding",
            at_ns=before if finding.where == "input" else end,
            attributes={
                "penstock.finding.rule": finding.rule,
                "penstock.finding.action": finding.action,
                "penstock.finding.where": finding.where,
                "penstock.finding.count": finding.count,
            },
        )
        for finding in exchange.findings
    )
