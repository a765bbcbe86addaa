"""Records as documents of the Elastic Common Schema (elastic.co/docs/reference/ecs): one for each exchange, each observation and each change of state.

Nothing that people wrote is in them: of an observation's text and correction only the length goes out.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from blake3 import blake3

from penstock.core.exchange import OPERATIONS, Exchange, Observation
from penstock.core.state_events import StateEvent
from penstock.journal.sampling import failed, is_slow
from penstock.journal.spans import ROUTES, parent_of, span_of, trace_of

ECS_VERSION = "9.0.0"
NAMESPACE = "default"
EXCHANGES, OBSERVATIONS, EVENTS = "penstock.exchange", "penstock.observation", "penstock.event"  # datasets
_FIRST, _LAST = -62135596800.0, 253402300799.0
_OUTCOMES = {"ok": "success", "cancelled": "unknown"}


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document, the data stream that it belongs to, and the id by which a repeat is known."""

    id: str
    stream: str
    source: bytes  # JSON


def stream_name(dataset: str) -> str:
    """The data stream of a dataset."""
    return f"logs-{dataset}-{NAMESPACE}"


def document_of(record: Exchange | Observation, slow_s: float) -> Document:
    """The document of `record`; exchanges that took more than `slow_s` seconds are tagged `slow`."""
    if isinstance(record, Exchange):
        dataset, name, fields = EXCHANGES, record.id, _exchange(record, slow_s)
    else:
        dataset, fields = OBSERVATIONS, _observation(record)
        whole = f"{record.tenant}\0{record.kind}\0{record.id}"  # the caller chose the id, each tenant for itself
        name = blake3(whole.encode("utf-8", "surrogatepass")).hexdigest(length=16)
    return _document(dataset, name, fields)


def event_document(event: StateEvent) -> Document:
    """The document of a change of state."""
    return _document(EVENTS, event.id, _event(event))


def _document(dataset: str, name: str, fields: dict[str, Any]) -> Document:
    fields["ecs"] = {"version": ECS_VERSION}
    fields["data_stream"] = {"type": "logs", "dataset": dataset, "namespace": NAMESPACE}
    return Document(id=name, stream=stream_name(dataset), source=msgspec.json.encode(_pruned(fields)))


def _time(at: float) -> str:
    """As ISO 8601; beyond the years 1 to 9999, which a caller's own time may be, their ends."""
    return (
        datetime.fromtimestamp(min(max(at, _FIRST), _LAST), UTC)
        .isoformat(timespec="microseconds")
        .replace("+00:00", "Z")
    )


def _exchange(record: Exchange, slow_s: float) -> dict[str, Any]:
    phases, usage = record.phases, record.usage
    wrong = failed(record)
    slow = is_slow(record, slow_s)
    tags = [tag for tag, holds in (("failed", wrong), ("slow", slow), ("flagged", bool(record.findings))) if holds]
    return {
        "@timestamp": _time(record.at),
        "message": f"{record.tenant or '-'} {record.operation} {record.model or '-'} {record.status} {record.outcome}"
        f" {phases.done / 1e6:.1f} ms",
        "tags": tags,
        "log": {"level": "error" if wrong else "warn" if tags or record.outcome == "refused" else "info"},
        "event": {
            "kind": "event",
            "category": ["web"],
            "type": ["access"],
            "module": "penstock",
            "dataset": EXCHANGES,
            "action": record.operation,
            "id": record.id,
            "duration": phases.done,
            "end": _time(record.at + phases.done * 1e-9),
            "outcome": _OUTCOMES.get(record.outcome, "failure"),
        },
        "service": {"name": "penstock", "type": "gateway", "node": {"name": record.worker}},
        "http": {"request": {"method": "POST"}, "response": {"status_code": record.status}},
        "url": {"path": ROUTES[record.operation]},
        "error": {"code": record.error},
        "user": {"hash": record.user},
        "organization": {"id": record.tenant},
        "trace": {"id": trace_of(record).hex()},
        "span": {"id": span_of(record).hex()},
        "parent": {"id": parent_of(record).hex()},
        "gen_ai": {
            "operation": {"name": OPERATIONS[record.operation]},
            "request": {"model": record.model},
            "response": {"model": record.version, "finish_reasons": [record.finish] if record.finish else []},
            "usage": {"input_tokens": usage.prompt, "output_tokens": usage.completion},
        },
        "penstock": _own_fields(record),
    }


def _own_fields(record: Exchange) -> dict[str, Any]:
    """What the Elastic Common Schema has no field for; `phases` in nanoseconds after the request's first byte."""
    phases = record.phases
    return {
        "outcome": record.outcome,
        "tenant": record.tenant,
        "key": record.key,
        "session": record.session,
        "route": record.route,
        "experiment": record.experiment,
        "arm": record.arm,
        "epoch": record.epoch,
        "unit": record.unit,
        "context": record.context,
        "copy_of": record.pair.of if record.pair is not None else "",
        "beside": record.pair.arm if record.pair is not None else "",
        "pool": record.pool,
        "replica": record.replica,
        "version": record.version,
        "digest": record.digest,
        "stream": record.stream,
        "phases": {
            "decoded": phases.decoded,
            "admitted": phases.admitted,
            "dispatched": phases.dispatched,
            "first_token": phases.first_token,
            "last_token": phases.last_token,
            "done": phases.done,
        },
        "engine": dict(record.engine.lengths()) if record.engine is not None else {},
        "usage": {"cached": record.usage.cached},
        "chunks": record.chunks,
        "cost": {"usd": record.cost_nanousd / 1e9},
        "cache": record.cache,
        "attempts": record.attempts,
        "hedged": record.hedged,
        "fallback": record.fallback,
        "resumed": record.resumed,
        "escalated": record.escalated,
        "trimmed": record.trimmed,
        "generation": record.generation,
        "findings": [msgspec.structs.asdict(finding) for finding in record.findings],
    }


def _observation(record: Observation) -> dict[str, Any]:
    return {
        "@timestamp": _time(record.received),
        "message": f"{record.tenant} {record.kind} {record.name}".rstrip(),
        "log": {"level": "warn" if record.kind == "report" else "info"},
        "event": {
            "kind": "event",
            "module": "penstock",
            "dataset": OBSERVATIONS,
            "action": record.kind,
            "id": record.id,
            "start": _time(record.at),
        },
        "service": {"name": "penstock", "type": "gateway"},
        "user": {"hash": record.user},
        "organization": {"id": record.tenant},
        "penstock": {
            "tenant": record.tenant,
            "key": record.key,
            "request": record.request,
            "observation": {
                "name": record.name,
                "rating": record.rating,
                "success": record.success,
                "value": record.value,
                "text_length": record.text_chars or len(record.text),
                "corrected_length": record.corrected_chars or len(record.corrected),
                "consent": record.consent,
            },
        },
    }


_IAM = frozenset({"key", "principal"})
_RUNNING = frozenset({"process", "replica"})
# What a verb does, in ECS' words; all others change.
_TYPES = {
    **dict.fromkeys(("create", "put", "register", "commit", "adopt"), "creation"),
    **dict.fromkeys(("delete", "remove", "revoke", "forget", "gc"), "deletion"),
    **dict.fromkeys(("read", "export", "exported"), "access"),
    **dict.fromkeys(("start", "restart", "publish", "back"), "start"),
    **dict.fromkeys(("unpublish", "out"), "end"),
}
_OF_IAM = {"creation": ["user", "creation"], "deletion": ["user", "deletion"], "change": ["user", "change"]}


def _event(event: StateEvent) -> dict[str, Any]:
    noun, _, verb = event.action.partition(".")
    kind = _TYPES.get(verb, "change")
    if noun in _IAM:
        category, types = ["iam"], _OF_IAM.get(kind, ["info"])
    elif noun in _RUNNING:
        category, types = ["process"], [kind]
    else:
        category, types = ["configuration"], [kind if kind not in {"start", "end"} else "change"]
    alert = event.action in {"alert.begin", "alert.end"}
    warns = event.outcome == "failure" or event.action in {"alert.begin", "process.restart", "replica.out"}
    return {
        "@timestamp": _time(event.at),
        "message": f"{event.principal} {event.action} {event.subject}: {event.reason}".rstrip(": "),
        "log": {"level": "warn" if warns else "info"},
        "event": {
            "kind": "alert" if alert else "event",
            "category": [] if alert else category,
            "type": ["start" if event.action == "alert.begin" else "end"] if alert else types,
            "module": "penstock",
            "dataset": EVENTS,
            "action": event.action,
            "id": event.id,
            "sequence": event.sequence,
            "outcome": event.outcome,
            "reason": event.reason,
        },
        "service": {"name": "penstock", "type": "control"},
        "user": {"name": event.principal},
        "organization": {"id": event.tenant},
        "penstock": {
            "tenant": event.tenant,
            "key": event.key,
            "change": {
                "subject": event.subject,
                "system": event.system,
                "before": event.before,
                "after": event.after,
                "restarts": event.restarts or None,
                **event.facts,
            },
        },
    }


def _pruned(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: empty words, lists and objects, and what is not known."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        inner = _pruned(value) if isinstance(value, dict) else value
        if inner or inner in (0, False):
            kept[name] = inner
    return kept
