"""Gates of a version in an environment: what is asked, what is given, what runs now, live; and the buttons that supply what is missing."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from penstock.console.client import at
from penstock.console.live import live
from penstock.console.shapes_gates import AnsweredItem, Evaluation, Gates
from penstock.console.visit import Visit
from penstock.core.errors import NotFound

_USUAL = "production"
_NEWEST = 12
_WRONG = 200


async def show(visit: Visit) -> Response:
    """The gates of a version in an environment."""
    environments, values = await asyncio.gather(visit.api.get("/environments", list[dict[str, Any]]), _read(visit))
    return visit.page(
        "gates.html",
        environments=[str(one["name"]) for one in environments],
        may_run=visit.may("models:write"),
        may_approve=visit.may("deployments:write"),
        **values,
    )


async def live_gates(visit: Visit) -> Response:
    """What stands and what runs, again and again."""

    async def read() -> Mapping[str, str]:
        return {"standing": visit.render("gates_standing.html", **await _read(visit))}

    return await live(visit, read, tick_s=1.0)


async def _read(visit: Visit) -> dict[str, Any]:
    name, label = visit.path("name"), visit.path("label")
    environment = visit.query("environment") or _USUAL
    gates, evaluations = await asyncio.gather(
        visit.api.get("/gates", Gates, model=name, label=label, environment=environment),
        visit.api.get("/evaluations", tuple[Evaluation, ...], model=name, limit=str(4 * _NEWEST)),
    )
    wanted = set(gates.under_way)
    shown = [one for one in evaluations if one.id in wanted or one.label == gates.label][:_NEWEST]
    return {"g": gates, "evaluations": shown}


async def run(visit: Visit) -> Response:
    """Have evaluated what is missing."""
    return await _done(visit, "/gates/run", "gates-run")


async def approve(visit: Visit) -> Response:
    """Give one's word for it."""
    return await _done(visit, "/approvals", "approved", reason=True)


async def _done(visit: Visit, path: str, done: str, *, reason: bool = False) -> Response:
    form = await visit.form()
    name, label = visit.path("name"), visit.path("label")
    environment = form.get("environment", "")
    body: dict[str, Any] = {"model": name, "label": label, "environment": environment}
    await visit.api.post(path, body | ({"reason": form.get("reason", "")} if reason else {}))
    query = urlencode({"environment": environment, "done": done})
    response = visit.to(f"{at('models', name, label, 'gates')}")
    response.headers["location"] += f"?{query}"
    return response


async def evaluation(visit: Visit) -> Response:
    """One evaluation: what it is bound to, its figures, and what was answered wrong."""
    identity = visit.path("id")
    found, wrong = await asyncio.gather(
        visit.api.get(at("evaluations", identity), Evaluation),
        visit.api.get(
            f"{at('evaluations', identity)}/items", tuple[AnsweredItem, ...], wrong="true", limit=str(_WRONG)
        ),
    )
    if found.kind == "scan" and not found.detail:
        raise NotFound(f"The scan {identity} has found nothing yet.")
    return visit.page("evaluation.html", e=found, figures=found.result.get("figures", []), wrong=wrong)
