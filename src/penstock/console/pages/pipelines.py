"""Pipelines: all of them, and one with its steps as they pass; and cancelling it."""

from collections.abc import Mapping

from starlette.responses import Response

from penstock.console.client import at
from penstock.console.live import live
from penstock.console.shapes_pipelines import Pipeline
from penstock.console.visit import Visit

_NEWEST = "100"


async def listing(visit: Visit) -> Response:
    """Pipelines, newest first; of one model if the address says so."""
    model = visit.query("model")
    found = await visit.api.get("/pipelines", tuple[Pipeline, ...], model=model, limit=_NEWEST)
    return visit.page("pipelines.html", pipelines=found, model=model)


async def show(visit: Visit) -> Response:
    """One pipeline."""
    return visit.page("pipeline.html", p=await _read(visit), may_cancel=visit.may("deployments:write"))


async def live_pipeline(visit: Visit) -> Response:
    """Its steps, again and again."""

    async def read() -> Mapping[str, str]:
        return {"steps": visit.render("pipeline_steps.html", p=await _read(visit))}

    return await live(visit, read, tick_s=1.0)


async def confirm_cancel(visit: Visit) -> Response:
    """Ask before it is cancelled."""
    visit.must("deployments:write")
    return visit.page("pipeline_cancel.html", p=await _read(visit))


async def cancel(visit: Visit) -> Response:
    """End it where it is."""
    form = await visit.form()
    path = at("pipelines", visit.path("id"))
    await visit.api.post(f"{path}/cancel", {"reason": form.get("reason", "")})
    return visit.to(path, "pipeline-cancelled")


async def _read(visit: Visit) -> Pipeline:
    return await visit.api.get(at("pipelines", visit.path("id")), Pipeline)
