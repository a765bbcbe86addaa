"""/api/v1/webhooks/NAME/...: what became of messages; sent again, and tried out. The webhooks themselves are resources."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.specs.resources import Spec
from penstock.control.webhooks.rows import list_deliveries, redeliver
from penstock.core.errors import NotFound
from penstock.delivery.events import EVENTS, TEST
from penstock.store.schema_pipelines import webhook_counts, webhook_deliveries

router = APIRouter(tags=["webhooks"])
Reader = Annotated[Principal, Depends(needs("deployments:read"))]
Writer = Annotated[Principal, Depends(needs("tenants:write"))]


class RedeliverBody(Spec):
    """The body of POST /webhooks/{name}/redeliver."""

    sequence: int | None = Field(default=None, ge=1, description="Of the event; left out: all dead letters.")


@router.get("/events")
async def list_events(_who: Reader) -> list[dict[str, str]]:
    """What webhooks can be told of."""
    return [{"type": name, "means": means} for name, means in EVENTS.items()]


@router.get("/webhooks/{name}/deliveries")
async def deliveries(
    name: str,
    control: ControlPart,
    _who: Reader,
    state: Literal["waiting", "delivered", "dead"] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Messages for a webhook, the newest event first: what became of each, and when it is sent again."""
    async with control.database.read() as connection:
        await _find(connection, name)
        return await list_deliveries(connection, name, state=state, limit=limit)


@router.get("/webhooks/{name}/standing")
async def standing(name: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """How many messages were delivered, wait and are dead letters."""
    async with control.database.read() as connection:
        row = await _find(connection, name)
        mine = webhook_deliveries.c.webhook == name
        states = select(webhook_deliveries.c.state, func.count()).where(mine).group_by(webhook_deliveries.c.state)
        found: dict[str, int] = {one[0]: one[1] for one in await connection.execute(states)}
    return {
        "webhook": name,
        "delivered": row.delivered,
        "failed": row.failed,
        "died": row.died,
        "waiting": found.get("waiting", 0),
        "dead": found.get("dead", 0),
    }


@router.post("/webhooks/{name}/redeliver")
async def again(
    name: str, control: ControlPart, who: Writer, body: Annotated[RedeliverBody | None, Body()] = None
) -> dict[str, Any]:
    """Send the message of an event again, or all dead letters."""
    async with control.deed(who) as change:
        await _find(change.connection, name)
        return {"redelivered": await redeliver(change, name, body.sequence if body is not None else None)}


@router.post("/webhooks/{name}/test", status_code=201)
async def test(name: str, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Send it an event that means nothing, signed like all others."""
    async with control.deed(who) as change:
        await _find(change.connection, name)
        await change.audit(TEST, name)
    return {"webhook": name, "type": TEST}


async def _find(connection: AsyncConnection, name: str) -> Any:
    row = (await connection.execute(select(webhook_counts).where(webhook_counts.c.webhook == name))).one_or_none()
    if row is None:
        raise NotFound(f"There is no webhook {name!r}.", param="name")
    return row
