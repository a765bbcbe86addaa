"""Webhooks: who is told, what waits, what was given up; and sending it again."""

import asyncio

from starlette.responses import Response

from penstock.console.client import at
from penstock.console.shapes_pipelines import Delivery, Standing, Webhook
from penstock.console.visit import Visit
from penstock.core.errors import BadRequest

_NEWEST = "50"


async def listing(visit: Visit) -> Response:
    """All webhooks, and how far each is."""
    found = await visit.api.get("/webhooks", tuple[Webhook, ...])
    standings = await asyncio.gather(
        *(visit.api.get(f"{at('webhooks', one.name)}/standing", Standing) for one in found)
    )
    return visit.page("webhooks.html", webhooks=list(zip(found, standings, strict=True)))


async def show(visit: Visit) -> Response:
    """One webhook and its newest messages."""
    where = at("webhooks", visit.path("name"))
    state = visit.query("state")
    webhook, standing, deliveries = await asyncio.gather(
        visit.api.get(where, Webhook),
        visit.api.get(f"{where}/standing", Standing),
        visit.api.get(f"{where}/deliveries", tuple[Delivery, ...], state=state, limit=_NEWEST),
    )
    return visit.page(
        "webhook.html", w=webhook, s=standing, deliveries=deliveries, state=state, may_send=visit.may("tenants:write")
    )


async def send(visit: Visit) -> Response:
    """Send a message again, all dead letters, or a test."""
    form = await visit.form()
    where, what = at("webhooks", visit.path("name")), form.get("what", "")
    if what == "test":
        await visit.api.post(f"{where}/test")
    elif what == "dead":
        await visit.api.post(f"{where}/redeliver", {})
    elif what.isascii() and what.isdigit():
        await visit.api.post(f"{where}/redeliver", {"sequence": int(what)})
    else:
        raise BadRequest(f"{what!r} is nothing to send.", param="what")
    return visit.to(where, "webhook-sent")
