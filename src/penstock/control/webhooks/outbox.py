"""The outbox: an event that others are told of, written in the transaction of the change that it is about."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import insert

from penstock.delivery.events import concerned
from penstock.store.schema_pipelines import outbox

if TYPE_CHECKING:
    from penstock.control.context import Change


async def post_event(change: "Change", sequence: int, action: str, subject: str, detail: dict[str, Any]) -> None:
    """Keep the message of an audit event, whose `sequence` orders it among all others."""
    about = concerned(action, subject)
    at = datetime.fromtimestamp(change.now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {"sequence": sequence, **msgspec.to_builtins(about), "subject": subject}
    told |= {"principal": change.caller.name, "detail": detail}
    await change.connection.execute(
        insert(outbox).values(
            sequence=sequence,
            id=change.new_id("evt"),
            at=change.now,
            type=action,
            subject=subject,
            model=about.model,
            body=msgspec.json.encode({"type": action, "timestamp": at, "data": told}).decode(),
        )
    )
