"""Deliveries as rows: one for each event and each webhook that wants it; the eldest that waits of each webhook and model is the next to go."""

from typing import Any

import msgspec
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.specs.webhook import WebhookSpec
from penstock.core.errors import NotFound
from penstock.delivery.events import wants
from penstock.delivery.webhooks import Next, Outcome
from penstock.store.schema_pipelines import outbox, webhook_counts, webhook_deliveries

_AT_ONCE = 1000  # events that are looked at in one transaction


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is to be sent now."""

    webhook: str
    sequence: int
    model: str
    id: str
    body: str
    attempts: int
    first_at: float | None


async def newest_event(connection: AsyncConnection) -> int:
    """The sequence of the newest event; 0: there is none."""
    return (await connection.execute(select(func.max(outbox.c.sequence)))).scalar_one() or 0


async def positions(connection: AsyncConnection) -> dict[str, int]:
    """Up to which event each webhook has its deliveries."""
    rows = await connection.execute(select(webhook_counts.c.webhook, webhook_counts.c.position))
    return {row.webhook: row.position for row in rows}


async def fan_out(change: Change, webhooks: dict[str, WebhookSpec]) -> int:
    """Make the deliveries of events that came since; how many. A webhook's position moves in the same transaction."""
    connection, made = change.connection, 0
    for name, position in (await positions(connection)).items():
        spec = webhooks.get(name)
        statement = select(outbox.c.sequence, outbox.c.type, outbox.c.subject, outbox.c.model).where(
            outbox.c.sequence > position
        )
        found = (await connection.execute(statement.order_by(outbox.c.sequence).limit(_AT_ONCE))).all()
        if not found or spec is None:
            continue
        moved = await connection.execute(
            update(webhook_counts)
            .where(webhook_counts.c.webhook == name, webhook_counts.c.position == position)
            .values(position=found[-1].sequence)
        )
        if moved.rowcount != 1:
            continue  # another control has made them
        rows = [
            {
                "webhook": name,
                "sequence": event.sequence,
                "model": event.model,
                "state": "waiting",
                "attempts": 0,
                "next_at": 0.0,
                "status": 0,
                "error": "",
            }
            for event in found
            if wants(
                webhook=name,
                events=spec.events,
                models=spec.models,
                action=event.type,
                subject=event.subject,
                model=event.model,
            )
        ]
        if rows:
            await connection.execute(insert(webhook_deliveries), rows)
        made += len(rows)
    return made


async def due_now(connection: AsyncConnection, now: float) -> list[Due]:
    """The eldest message that waits of each webhook and model, if its time has come."""
    waiting = webhook_deliveries.c.state == "waiting"
    eldest = (
        select(webhook_deliveries.c.webhook, func.min(webhook_deliveries.c.sequence).label("sequence"))
        .where(waiting)
        .group_by(webhook_deliveries.c.webhook, webhook_deliveries.c.model)
        .subquery()
    )
    statement = (
        select(webhook_deliveries, outbox.c.id.label("message"), outbox.c.body)
        .join(
            eldest,
            (eldest.c.webhook == webhook_deliveries.c.webhook) & (eldest.c.sequence == webhook_deliveries.c.sequence),
        )
        .join(outbox, outbox.c.sequence == webhook_deliveries.c.sequence)
        .where(waiting, webhook_deliveries.c.next_at <= now)
        .order_by(webhook_deliveries.c.next_at, webhook_deliveries.c.sequence)
    )
    return [
        Due(
            webhook=row.webhook,
            sequence=row.sequence,
            model=row.model,
            id=row.message,
            body=row.body,
            attempts=row.attempts,
            first_at=row.first_at,
        )
        for row in await connection.execute(statement)
    ]


async def claim(connection: AsyncConnection, due: Due, *, now: float, until: float) -> bool:
    """Note that it is being sent, and not before `until` by anybody else; False if somebody else sends it."""
    taken = await connection.execute(
        update(webhook_deliveries)
        .where(_is(due.webhook, due.sequence), webhook_deliveries.c.state == "waiting")
        .where(webhook_deliveries.c.attempts == due.attempts)
        .values(attempts=due.attempts + 1, first_at=due.first_at if due.first_at is not None else now, next_at=until)
    )
    return taken.rowcount == 1


async def settle(connection: AsyncConnection, due: Due, outcome: Outcome, following: Next, now: float) -> None:
    """Write down what came of an attempt, unless the delivery was changed meanwhile."""
    written = await connection.execute(
        update(webhook_deliveries)
        .where(_is(due.webhook, due.sequence), webhook_deliveries.c.state == "waiting")
        .where(webhook_deliveries.c.attempts == due.attempts + 1)
        .values(
            state=following.state,
            next_at=following.at,
            status=outcome.status,
            error=outcome.error,
            ended_at=None if following.state == "waiting" else now,
        )
    )
    if written.rowcount != 1:
        return
    counts = webhook_counts.c
    await connection.execute(
        update(webhook_counts)
        .where(counts.webhook == due.webhook)
        .values(
            delivered=counts.delivered + int(following.state == "delivered"),
            failed=counts.failed + int(following.state != "delivered"),
            died=counts.died + int(following.state == "dead"),
        )
    )


async def redeliver(change: Change, webhook: str, sequence: int | None) -> int:
    """Have messages sent anew: that of one event, whatever became of it, or all dead letters; how many.

    Raises:
        NotFound: if the event is none that the webhook was to be told of, or is kept no more.
    """
    mine = webhook_deliveries.c.webhook == webhook
    if sequence is None:
        mine &= webhook_deliveries.c.state == "dead"
    else:
        mine &= (webhook_deliveries.c.sequence == sequence) & (webhook_deliveries.c.state != "waiting")
        known = await change.connection.execute(select(webhook_deliveries.c.state).where(_is(webhook, sequence)))
        if known.first() is None:
            raise NotFound(f"The webhook {webhook} has no delivery of the event {sequence}.", param="sequence")
    again = await change.connection.execute(
        update(webhook_deliveries)
        .where(mine)
        .values(state="waiting", attempts=0, first_at=None, next_at=0.0, ended_at=None)
    )
    await change.audit("webhook.redeliver", webhook, sequence=sequence, count=again.rowcount)
    return again.rowcount


async def prune(connection: AsyncConnection, before: float) -> None:
    """Remove what ended before then, and events that nobody waits for."""
    await connection.execute(
        delete(webhook_deliveries).where(
            webhook_deliveries.c.state != "waiting", webhook_deliveries.c.ended_at < before
        )
    )
    told = select(func.min(webhook_counts.c.position)).scalar_subquery()
    waited_for = select(webhook_deliveries.c.sequence)
    await connection.execute(
        delete(outbox).where(
            outbox.c.at < before,
            outbox.c.sequence <= func.coalesce(told, outbox.c.sequence),
            outbox.c.sequence.not_in(waited_for),
        )
    )


async def list_deliveries(
    connection: AsyncConnection, webhook: str, *, state: str | None, limit: int
) -> list[dict[str, Any]]:
    """Deliveries of a webhook, the newest event first."""
    statement = (
        select(webhook_deliveries, outbox.c.id.label("message"), outbox.c.type, outbox.c.subject, outbox.c.at)
        .join(outbox, outbox.c.sequence == webhook_deliveries.c.sequence)
        .where(webhook_deliveries.c.webhook == webhook)
        .order_by(webhook_deliveries.c.sequence.desc())
        .limit(limit)
    )
    if state is not None:
        statement = statement.where(webhook_deliveries.c.state == state)
    return [_told(row) for row in await connection.execute(statement)]


def _told(row: Row[Any]) -> dict[str, Any]:
    return {
        "sequence": row.sequence,
        "id": row.message,
        "type": row.type,
        "subject": row.subject,
        "model": row.model,
        "at": row.at,
        "state": row.state,
        "attempts": row.attempts,
        "first_at": row.first_at,
        "next_at": row.next_at if row.state == "waiting" else None,
        "status": row.status or None,
        "error": row.error,
        "ended_at": row.ended_at,
    }


def _is(webhook: str, sequence: int) -> Any:
    return (webhook_deliveries.c.webhook == webhook) & (webhook_deliveries.c.sequence == sequence)
