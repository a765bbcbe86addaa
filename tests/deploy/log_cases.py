"""For each log alert: records with which it fires, by group, and records that come near and with which it does not."""

from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core.exchange import Exchange, Finding, Observation, Phases
from penstock.journal.log_rules import TABLE, Record

NOW = 1_800_000_000.0
COUNTS = {alert.name: alert.count for alert in TABLE}
MINUTES = {alert.name: alert.minutes for alert in TABLE}


def _exchange(number: int, at: float, **fields: Any) -> Exchange:
    base: dict[str, Any] = {
        "tenant": "acme",
        "worker": "gateway-0",
        "model": "bot",
        "route": "bot",
        "status": 200,
        "outcome": "ok",
    }
    base["phases"] = Phases(1, 2, 3, 4, 5, 1000)
    return Exchange(id=f"req_{number:026d}", at=at, **base | fields)


def _observation(number: int, at: float, **fields: Any) -> Observation:
    return Observation(id=f"told-{number}", at=at, received=at, **{"tenant": "acme", **fields})


MAKE: dict[str, Callable[..., Record]] = {"exchange": _exchange, "observation": _observation}
FAILED = {"outcome": "error", "status": 502, "error": "upstream_failed"}
LIMITED = {"outcome": "refused", "status": 429, "error": "rate_limit_exceeded"}
UNKNOWN = {"outcome": "refused", "status": 401, "error": "invalid_api_key", "tenant": ""}
SLOW = {"phases": Phases(1, 2, 3, 4, 5, 11_000_000_000)}
UNUSABLE = {"outcome": "error", "status": 503, "error": "route_unusable"}
BLOCKED = {
    "findings": (Finding(rule="r", action="block", where="input"), Finding(rule="s", action="flag", where="input"))
}
FLAGGED = {"findings": (Finding(rule="r", action="flag", where="input"),)}
HARMFUL = {"kind": "report", "name": "harmful"}
BAD = {"kind": "feedback", "rating": -1.0}

# Alert: kind of record, what fits, the group that fires; what comes near and does not fit.
CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "PenstockLogTenantFails": ("exchange", FAILED, "acme", LIMITED),
    "PenstockLogTenantLimited": ("exchange", LIMITED, "acme", {**LIMITED, "error": "queue_full"}),
    "PenstockLogKeysRefused": ("exchange", UNKNOWN, "", {**UNKNOWN, "error": "missing_api_key"}),
    "PenstockLogCrashed": (
        "exchange",
        {"outcome": "crashed", "error": "crashed"},
        "gateway-0",
        {"outcome": "crashed", "error": "upstream_truncated"},
    ),
    "PenstockLogSlow": ("exchange", SLOW, "bot", {"phases": Phases(1, 2, 3, 4, 5, 9_000_000_000)}),
    "PenstockLogBrokenOff": ("exchange", {"resumed": 2}, "bot", {"hedged": True}),
    "PenstockLogUnusable": ("exchange", UNUSABLE, "route_unusable", {**UNUSABLE, "error": "no_replica"}),
    "PenstockLogBlocked": ("exchange", BLOCKED, "acme", FLAGGED),
    "PenstockLogHarmReported": ("observation", HARMFUL, "acme", {**HARMFUL, "name": "wrong"}),
    "PenstockLogDisliked": ("observation", BAD, "acme", {**BAD, "rating": 0.0}),
}


def _records(name: str, count: int, *, first: int = 0, span: float = 1.0, **more: Any) -> list[Record]:
    """`count` that fit, spread over `span` of the alert's minutes before NOW."""
    kind, fits, _, _ = CASES[name]
    width = MINUTES[name] * 60 * span
    return [MAKE[kind](first + n, NOW - width * (n + 1) / (count + 1), **fits | more) for n in range(count)]


def firing(name: str) -> list[Record]:
    """Just enough, within the window, and what has nothing to do with it."""
    kind, _, _, near = CASES[name]
    return [*_records(name, COUNTS[name]), MAKE[kind](9000, NOW - 1, **near), _noise(kind)]


def silent(name: str) -> dict[str, list[Record]]:
    """Why it does not fire: the records."""
    kind, _, group, near = CASES[name]
    count = COUNTS[name]
    width = MINUTES[name] * 60
    cases: dict[str, list[Record]] = {
        "too few": [*_records(name, count - 1), _noise(kind)],
        "other records": [MAKE[kind](n, NOW - width * n / (2 * count), **near) for n in range(count)],
        "too long ago": [
            msgspec.structs.replace(one, **{at: getattr(one, at) - width - 1.0 for at in _times(one)})
            for one in _records(name, count)
        ],
    }
    if group and count > 1:
        field = {"acme": "tenant", "bot": "route", "gateway-0": "worker"}.get(group)
        if field is not None:
            other: dict[str, Any] = {field: "another"} | ({"model": "another"} if group == "bot" else {})
            half = count // 2
            cases["of two groups"] = [*_records(name, half), *_records(name, count - half, first=500, **other)]
            nobody: dict[str, Any] = {field: ""} | ({"model": ""} if group == "bot" else {})
            cases["of no group"] = _records(name, count, **nobody)
    return cases


def _times(record: Record) -> tuple[str, ...]:
    return ("at",) if isinstance(record, Exchange) else ("at", "received")


def _noise(kind: str) -> Record:
    return _exchange(9100, NOW - 2) if kind == "exchange" else _observation(9100, NOW - 2, kind="feedback", rating=1.0)
