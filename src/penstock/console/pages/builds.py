"""Builds of a version: what each precision costs and gains, the jobs that make them, live; and the buttons that ask for one or for all."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from penstock.console.client import at
from penstock.console.live import live
from penstock.console.shapes_builds import BuildJob, Tradeoff
from penstock.console.visit import Visit
from penstock.registry.making import WIDEST


async def show(visit: Visit) -> Response:
    """The builds of a version."""
    values = await _read(visit)
    missing = [one.precision for one in values["t"].options if not one.build and not one.relation]
    return visit.page("builds.html", missing=missing, may_build=visit.may("models:write"), **values)


async def live_builds(visit: Visit) -> Response:
    """What is measured and what is made, again and again."""

    async def read() -> Mapping[str, str]:
        return {"builds": visit.render("builds_table.html", **await _read(visit))}

    return await live(visit, read, tick_s=1.0)


async def _read(visit: Visit) -> dict[str, Any]:
    name, label = visit.path("name"), visit.path("label")
    tradeoff, jobs = await asyncio.gather(
        visit.api.get(f"{at('models', name, 'versions', label)}/tradeoff", Tradeoff),
        visit.api.get("/builds", tuple[BuildJob, ...], model=name, label=label),
    )
    suites = list(dict.fromkeys((q.suite, q.measure) for option in tradeoff.options for q in option.quality))
    return {"t": tradeoff, "jobs": jobs, "suites": suites, "name": name, "label": label}


async def make(visit: Visit) -> Response:
    """Have one built."""
    form = await visit.form()
    precision = form.get("precision", "")
    await visit.api.post(f"{_version(visit)}/builds", {"precision": precision if precision in WIDEST else ""})
    return visit.to(at("models", visit.path("name"), visit.path("label"), "builds"), "build-asked")


async def suggest(visit: Visit) -> Response:
    """Have everything built and measured."""
    await visit.form()
    await visit.api.post(f"{_version(visit)}/tradeoff", {})
    return visit.to(at("models", visit.path("name"), visit.path("label"), "builds"), "builds-asked")


def _version(visit: Visit) -> str:
    return at("models", visit.path("name"), "versions", visit.path("label"))
