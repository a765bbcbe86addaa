"""What Alertmanager tells, kept: one row for each time that an alert fired, and what changed with each notice.

Notices come late, twice and out of order (Alertmanager repeats what fires, and delivers at least once), so folding one in is idempotent.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import SYSTEM, Control
from penstock.core.errors import BadRequest
from penstock.store.schema_alerts import alerts
from penstock.store.sql import next_value

KEPT_S = 90 * 86400.0  # a resolved alert is forgotten after this
LATE_S = 10.0  # less than Alertmanager's group_interval: what it tells again of the same group comes later than this
MAX_ALERTS = 1000  # in one notice
_MAX_TEXT = 2000
State = Literal["firing", "resolved"]


class Told(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One alert of a notice, as Alertmanager writes it."""

    status: State
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    starts_at: datetime
    ends_at: datetime | None = None  # of one that fires: the year 1


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Alertmanager's webhook body, version 4, as far as it is read here."""

    version: str
    alerts: tuple[Told, ...]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One time that an alert fired. Times are Unix seconds."""

    sequence: int
    fingerprint: str
    name: str
    severity: str
    tenant: str
    state: State
    summary: str
    runbook: str
    labels: dict[str, str]
    starts_at: float
    ends_at: float | None
    heard_at: float
    notices: int


def parse_notice(body: bytes) -> Notice:
    """The notice in `body`.

    Raises:
        BadRequest: if it is none of version 4, or holds too many alerts.
    """
    try:
        notice = msgspec.json.decode(body, type=Notice)
    except msgspec.DecodeError as error:
        raise BadRequest(f"This is no notice of Alertmanager's: {error}.", param="body") from None
    if notice.version != "4":
        raise BadRequest(f"A notice of version {notice.version[:20]!r} is not understood, only '4'.", param="version")
    if len(notice.alerts) > MAX_ALERTS:
        raise BadRequest(
            f"{len(notice.alerts)} alerts in one notice are more than {MAX_ALERTS}: set max_alerts.", param="alerts"
        )
    return notice


def fold(last: Alert | None, told: Told, now: float) -> Alert | None:
    """What is known after `told`; None: nothing new.

    Args:
        last: the newest of the same fingerprint.
        told: what the notice says.
        now: Unix seconds.

    Returns:
        `last` as it is now, or another time that it fired, whose sequence is 0 until it has one.
    """
    starts, ends = told.starts_at.timestamp(), _ended(told, now)
    if last is not None and last.state == "firing":
        heard = msgspec.structs.replace(last, heard_at=now, notices=last.notices + 1, summary=_summary(told))
        return heard if ends is None else msgspec.structs.replace(heard, state="resolved", ends_at=ends)
    # What fires again with its old start was cut off from Alertmanager meanwhile; a copy that was overtaken comes at once.
    late = ends is not None or (last is not None and now - last.heard_at < LATE_S)
    if late and last is not None and last.ends_at is not None and starts < last.ends_at:
        return None
    return Alert(
        sequence=0,
        fingerprint=_text(told.fingerprint, 64),
        name=_text(told.labels.get("alertname", ""), 255),
        severity=_text(told.labels.get("severity", ""), 32),
        tenant=_text(told.labels.get("tenant", ""), 96),
        state="firing" if ends is None else "resolved",
        summary=_summary(told),
        runbook=_text(told.annotations.get("runbook_url", ""), _MAX_TEXT),
        labels=told.labels,
        starts_at=starts,
        ends_at=ends,
        heard_at=now,
        notices=1,
    )


def _ended(told: Told, now: float) -> float | None:
    if told.status == "firing":
        return None
    return now if told.ends_at is None else max(told.starts_at.timestamp(), min(told.ends_at.timestamp(), now))


def _summary(told: Told) -> str:
    return _text(told.annotations.get("summary", ""), _MAX_TEXT)


def _text(value: str, most: int) -> str:
    return value.replace("\x00", "")[:most]  # PostgreSQL takes no NUL


async def take(control: Control, notice: Notice) -> tuple[Alert, ...]:
    """Keep what `notice` says; the alerts that began or ended with it, each told once.

    Raises:
        Unavailable: if the database cannot be written; Alertmanager tries again then.
    """
    now = control.clock()
    changed: list[Alert] = []
    async with control.deed(SYSTEM) as change:
        connection = change.connection
        # Taken first, so that two notices go one after the other on every database.
        sequence = await next_value(connection, "alerts")
        for told in notice.alerts:
            last = await _last(connection, _text(told.fingerprint, 64))
            new = fold(last, told, now)
            if new is None:
                continue
            if new.sequence == 0:
                new = msgspec.structs.replace(new, sequence=sequence)
                sequence = await next_value(connection, "alerts")
                await connection.execute(insert(alerts).values(**msgspec.structs.asdict(new)))
            else:
                await connection.execute(
                    update(alerts).where(alerts.c.sequence == new.sequence).values(**msgspec.structs.asdict(new))
                )
            if last is None or last.sequence != new.sequence or last.state != new.state:
                changed.append(new)
                await change.audit(
                    "alert.begin" if new.state == "firing" else "alert.end",
                    new.name,
                    of_tenant=new.tenant or None,
                    alert=new.sequence,
                    severity=new.severity,
                    summary=new.summary,
                )
        await connection.execute(
            delete(alerts).where(alerts.c.state == "resolved", alerts.c.ends_at < control.clock() - KEPT_S)
        )
    return tuple(changed)


async def _last(connection: AsyncConnection, fingerprint: str) -> Alert | None:
    statement = select(alerts).where(alerts.c.fingerprint == fingerprint).order_by(alerts.c.sequence.desc()).limit(1)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _alert(row)


def _alert(row: Row[Any]) -> Alert:
    return Alert(**{name: getattr(row, name) for name in Alert.__struct_fields__})


async def read_alerts(
    control: Control, *, state: State | None, tenant: str | None, before: int | None = None, limit: int = 100
) -> Sequence[Alert]:
    """Alerts, newest first.

    Args:
        control: the stores.
        state: only these; None: all.
        tenant: only those of this tenant; None: all.
        before: only those with a smaller sequence.
        limit: at most so many.

    Raises:
        Unavailable: if the database cannot be read.
    """
    statement = select(alerts).order_by(alerts.c.sequence.desc()).limit(limit)
    for column, value in ((alerts.c.state, state), (alerts.c.tenant, tenant)):
        if value is not None:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(alerts.c.sequence < before)
    async with control.database.read() as connection:
        return [_alert(row) for row in await connection.execute(statement)]
