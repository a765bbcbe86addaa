"""The audit trail as sinks are told it: what of each event goes out, with digests of what stood there before and stands there now."""

from typing import Any

import msgspec
from blake3 import blake3
from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change, Control
from penstock.core.state_events import FACTS, LONGEST_REASON, REASONS, EventOutcome, StateEvent, StateEvents
from penstock.store.schema import audit_events

_FAILED = frozenset({"fail", "refuse"})
_LOOK_BACK = 20  # events of a subject among which its last digest is looked for


async def read_events(control: Control, after: int, limit: int) -> StateEvents:
    """The first `limit` events after the sequence `after`.

    Raises:
        Unavailable: if the database cannot be read.
    """
    events = audit_events
    async with control.database.read() as connection:
        last = (await connection.execute(select(func.max(events.c.sequence)))).scalar() or 0
        statement = select(events).where(events.c.sequence > after).order_by(events.c.sequence).limit(limit)
        rows = (await connection.execute(statement)).all()
        return StateEvents(events=tuple([await _event(connection, row) for row in rows]), last=last)


async def newest_action(change: Change, subject: str, actions: tuple[str, ...]) -> Any:
    """The newest event of `subject` that is one of `actions`, as a row of its action and detail; None if there is none."""
    statement = (
        select(audit_events.c.action, audit_events.c.detail)
        .where(audit_events.c.subject == subject, audit_events.c.action.in_(actions))
        .order_by(audit_events.c.sequence.desc())
        .limit(1)
    )
    return (await change.connection.execute(statement)).one_or_none()


def digest_of(detail: dict[str, Any]) -> str:
    """The digest of what an event of this detail put there: the one that it names, else that of its spec; "" if it put nothing."""
    named = detail.get("digest")
    if isinstance(named, str) and named:
        return named
    spec = detail.get("spec")
    return "" if spec is None else f"blake3:{blake3(msgspec.json.encode(spec, order='sorted')).hexdigest()}"


def outcome_of(action: str, detail: dict[str, Any]) -> EventOutcome:
    """Of an event: `failure` where something was given up or refused, `unknown` of alerts and restarts, which are about nothing that was tried."""
    noun, _, verb = action.partition(".")
    if verb in _FAILED or (action == "evaluation.finish" and detail.get("error")):
        return "failure"
    return "unknown" if noun in {"alert", "process", "replica"} else "success"


async def _event(connection: AsyncConnection, row: Row[Any]) -> StateEvent:
    detail: dict[str, Any] = row.detail
    after = digest_of(detail)
    told = f"{row.at!r}\0{row.sequence}\0{row.action}\0{row.subject}\0{row.principal}"
    restarts = detail.get("restarts")
    return StateEvent(
        id=f"evt_{blake3(told.encode('utf-8', 'surrogatepass')).hexdigest(length=16)}",
        sequence=row.sequence,
        at=row.at,
        action=row.action,
        subject=row.subject,
        outcome=outcome_of(row.action, detail),
        principal=row.principal,
        key=row.key,
        tenant=row.tenant or "",
        system=row.system,
        before=await _before(connection, row) if after or row.action.endswith(".delete") else "",
        after=after,
        reason=_reason(detail),
        restarts=restarts if isinstance(restarts, int) else 0,
        facts={
            name: str(value)
            for name, value in detail.items()
            if name in FACTS and isinstance(value, str | int) and value != ""
        },
    )


async def _before(connection: AsyncConnection, row: Row[Any]) -> str:
    """What the last event of the same kind of thing put at this subject."""
    noun = row.action.partition(".")[0]
    statement = (
        select(audit_events.c.action, audit_events.c.detail)
        .where(
            audit_events.c.subject == row.subject,
            audit_events.c.sequence < row.sequence,
            audit_events.c.action.startswith(f"{noun}.", autoescape=True),
        )
        .order_by(audit_events.c.sequence.desc())
        .limit(_LOOK_BACK)
    )
    for earlier in await connection.execute(statement):
        if earlier.action.endswith(".delete"):
            return ""
        digest = digest_of(earlier.detail)
        if digest:
            return digest
    return ""


def _reason(detail: dict[str, Any]) -> str:
    for name in REASONS:
        value = detail.get(name)
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
        if text:
            return text[:LONGEST_REASON]
    return ""
