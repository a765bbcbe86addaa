"""Drift: every model and arm that is watched, and what alerts did about it; part of a model's page too."""

import asyncio
from typing import Any

from starlette.responses import Response

from penstock.console.shapes_drift import AlertAction, Drift, DriftPast
from penstock.console.visit import Visit, allowed

_ACTIONS = 20
_GROUPS = 20  # whose days are shown
_DAYS = 56  # rows of each: a week of eight signals


async def show(visit: Visit) -> Response:
    """All that is watched."""
    return visit.page("drift.html", **await watched(visit, None))


async def watched(visit: Visit, model: str | None) -> dict[str, Any]:
    """What a page shows of drift: of one model, or of all."""
    drift, actions = await asyncio.gather(
        allowed(visit.api.get("/drift", tuple[Drift, ...], model=model), ()),
        allowed(visit.api.get("/alerts/actions", tuple[AlertAction, ...], model=model, limit=_ACTIONS), ()),
    )
    shown = drift[:_GROUPS]
    asked = (
        visit.api.get("/drift/days", tuple[DriftPast, ...], model=one.model, arm=one.arm, limit=_DAYS) for one in shown
    )
    days = {(one.model, one.arm): found for one, found in zip(shown, await asyncio.gather(*asked), strict=True)}
    return {"drift": drift, "days": days, "actions": actions, "may_accept": visit.may("deployments:write")}


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
