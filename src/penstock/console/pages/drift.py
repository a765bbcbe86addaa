"""Drift: every model and arm that is watched, and what alerts did about it; part of a model's page too."""

import asyncio
from typing import Any

from starlette.responses import Response

from penstock.console.shapes_drift import AlertAction, Drift
from penstock.console.visit import Visit, allowed

_ACTIONS = 20


async def show(visit: Visit) -> Response:
    """All that is watched."""
    return visit.page("drift.html", **await watched(visit, None))


async def watched(visit: Visit, model: str | None) -> dict[str, Any]:
    """What a page shows of drift: of one model, or of all."""
    drift, actions = await asyncio.gather(
        allowed(visit.api.get("/drift", tuple[Drift, ...], model=model), ()),
        allowed(visit.api.get("/alerts/actions", tuple[AlertAction, ...], model=model, limit=_ACTIONS), ()),
    )
    return {"drift": drift, "actions": actions, "may_accept": visit.may("deployments:write")}


async def accept(visit: Visit) -> Response:
    """Take a change for what is to be."""
    form = await visit.form()
    body = {
        "model": form.get("model", ""),
        "arm": form.get("arm", ""),
        "signal": form.get("signal") or None,
        "reason": form.get("reason", ""),
    }
    await visit.api.post("/drift/accept", body)
    return visit.to("/drift", "drift-accepted")
