"""Log alerts: what is looked for in records, told once, for Elasticsearch (Watcher, Kibana's rules) and for control, which asks no Elasticsearch.

Each counts the records of the last minutes that fit, by a field if it has one, and fires when there are as many as it says. They look for what metrics cannot tell, since
labels there are bounded: tenants, error codes, single workers, what people wrote back. A table and nothing else.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from penstock.core.exchange import Exchange, Observation
from penstock.journal.ecs import EXCHANGES, OBSERVATIONS
from penstock.journal.sampling import failed, is_slow


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on one field: its value, or one of its values, is among `any_of`, or lies within the bounds."""

    field: str  # of the documents in Elasticsearch
    any_of: tuple[str | bool, ...] = ()
    at_least: float | None = None
    below: float | None = None


class LogAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert. `summary` has `{count}` and `{group}`; `runbook` is a page in docs/runbooks."""

    name: str
    severity: Literal["page", "ticket"]
    dataset: str
    where: tuple[Where, ...]  # all of them
    by: str = ""  # each value of this field is counted for itself; records without one are not; "": all together
    count: int
    minutes: int
    summary: str
    runbook: str


TABLE: tuple[LogAlert, ...] = (
    LogAlert(
        name="PenstockLogTenantFails",
        severity="page",
        dataset=EXCHANGES,
        where=(Where(field="tags", any_of=("failed",)),),
        by="organization.id",
        count=20,
        minutes=5,
        summary="{count} requests of the tenant {group} failed within 5 minutes.",
        runbook="availability-burn",
    ),
    LogAlert(
        name="PenstockLogTenantLimited",
        severity="ticket",
        dataset=EXCHANGES,
        where=(
            Where(
                field="error.code",
                any_of=("rate_limit_exceeded", "concurrency_limit_exceeded", "insufficient_quota"),
            ),
        ),
        by="organization.id",
        count=100,
        minutes=10,
        summary="{count} requests of the tenant {group} were over its limits within 10 minutes.",
        runbook="limits",
    ),
    LogAlert(
        name="PenstockLogKeysRefused",
        severity="ticket",
        dataset=EXCHANGES,
        where=(Where(field="error.code", any_of=("invalid_api_key", "expired_api_key")),),
        count=50,
        minutes=5,
        summary="{count} requests within 5 minutes came with keys that are not valid: a client that was forgotten, or somebody who tries.",
        runbook="limits",
    ),
    LogAlert(
        name="PenstockLogCrashed",
        severity="ticket",
        dataset=EXCHANGES,
        where=(Where(field="error.code", any_of=("crashed",)),),
        by="service.node.name",
        count=1,
        minutes=10,
        summary="{group} died with {count} streams running.",
        runbook="target-down",
    ),
    LogAlert(
        name="PenstockLogSlow",
        severity="ticket",
        dataset=EXCHANGES,
        where=(Where(field="tags", any_of=("slow",)),),
        by="gen_ai.request.model",
        count=20,
        minutes=10,
        summary="{count} requests to {group} took longer than ship.slow_s within 10 minutes.",
        runbook="latency-burn",
    ),
    LogAlert(
        name="PenstockLogBrokenOff",
        severity="ticket",
        dataset=EXCHANGES,
        where=(Where(field="penstock.resumed", at_least=1),),
        by="penstock.route",
        count=10,
        minutes=10,
        summary="{count} streams of {group} broke off and were gone on with by another replica within 10 minutes.",
        runbook="replica-out",
    ),
    LogAlert(
        name="PenstockLogUnusable",
        severity="page",
        dataset=EXCHANGES,
        where=(
            Where(field="error.code", any_of=("route_unusable", "pool_unusable", "policy_unusable", "key_unusable")),
        ),
        by="error.code",
        count=5,
        minutes=5,
        summary="{count} requests met what is configured wrongly ({group}) within 5 minutes.",
        runbook="snapshot",
    ),
    LogAlert(
        name="PenstockLogBlocked",
        severity="ticket",
        dataset=EXCHANGES,
        where=(Where(field="penstock.findings.action", any_of=("block",)),),
        by="organization.id",
        count=20,
        minutes=10,
        summary="Content rules blocked {count} requests of the tenant {group} within 10 minutes.",
        runbook="safety-spike",
    ),
    LogAlert(
        name="PenstockLogHarmReported",
        severity="page",
        dataset=OBSERVATIONS,
        where=(
            Where(field="event.action", any_of=("report",)),
            Where(field="penstock.observation.name", any_of=("harmful", "private")),
        ),
        by="penstock.tenant",
        count=3,
        minutes=60,
        summary="{count} answers to the tenant {group} were reported as harmful or private within an hour.",
        runbook="safety-spike",
    ),
    LogAlert(
        name="PenstockLogDisliked",
        severity="ticket",
        dataset=OBSERVATIONS,
        where=(
            Where(field="event.action", any_of=("feedback",)),
            Where(field="penstock.observation.rating", below=0),
        ),
        by="penstock.tenant",
        count=20,
        minutes=30,
        summary="{count} answers to the tenant {group} were rated badly within 30 minutes.",
        runbook="safety-spike",
    ),
)

Record = Exchange | Observation


def _tags(record: Any, slow_s: float) -> tuple[str, ...]:
    found = (("failed", failed(record)), ("slow", is_slow(record, slow_s)), ("flagged", bool(record.findings)))
    return tuple(tag for tag, holds in found if holds)


# How a field of the documents is had from the record itself; a test compares with the documents.
READ: dict[str, dict[str, Callable[[Any, float], Any]]] = {
    EXCHANGES: {
        "tags": _tags,
        "error.code": lambda r, _: r.error,
        "penstock.outcome": lambda r, _: r.outcome,
        "penstock.resumed": lambda r, _: r.resumed,
        "penstock.route": lambda r, _: r.route,
        "penstock.findings.action": lambda r, _: tuple(one.action for one in r.findings),
        "organization.id": lambda r, _: r.tenant,
        "service.node.name": lambda r, _: r.worker,
        "gen_ai.request.model": lambda r, _: r.model,
    },
    OBSERVATIONS: {
        "event.action": lambda r, _: r.kind,
        "penstock.tenant": lambda r, _: r.tenant,
        "penstock.observation.name": lambda r, _: r.name,
        "penstock.observation.rating": lambda r, _: r.rating,
    },
}


def time_of(record: Record) -> float:
    """The `@timestamp` of its document, Unix seconds."""
    return record.at if isinstance(record, Exchange) else record.received


def group_of(alert: LogAlert, record: Record, slow_s: float) -> str | None:
    """What `record` is counted under by `alert`: a value of `by`, or "" if it has none; None if it does not fit.

    Args:
        alert: which one.
        record: of any kind.
        slow_s: requests that took longer are tagged `slow`.
    """
    if (alert.dataset == EXCHANGES) != isinstance(record, Exchange):
        return None
    read = READ[alert.dataset]
    if not all(_holds(one, read[one.field](record, slow_s)) for one in alert.where):
        return None
    if not alert.by:
        return ""
    return read[alert.by](record, slow_s) or None


def _holds(where: Where, value: Any) -> bool:
    if where.any_of:
        values = value if isinstance(value, tuple) else (value,)
        return any(one in where.any_of for one in values)
    if value is None:
        return False
    return (where.at_least is None or value >= where.at_least) and (where.below is None or value < where.below)
