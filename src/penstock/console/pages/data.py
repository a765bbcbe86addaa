"""Data sets and their custody; two versions compared; how ready one is."""

from typing import Any

import msgspec
from starlette.responses import Response

from penstock.console.client import at
from penstock.console.shapes import Version
from penstock.console.shapes_versions import DataSet, Diff, Readiness
from penstock.console.visit import Visit


async def listing(visit: Visit) -> Response:
    """All data sets."""
    return visit.page("datasets.html", datasets=await visit.api.get("/datasets", tuple[DataSet, ...]))


async def show(visit: Visit) -> Response:
    """One data set: its record, chain of custody, who used it."""
    return visit.page("dataset.html", d=await visit.api.get(at("datasets", visit.path("name")), DataSet))


async def compare(visit: Visit) -> Response:
    """Two versions of a model: the form, and what differs once two are chosen."""
    name, a, b = visit.path("name"), visit.query("a"), visit.query("b")
    versions = await visit.api.get(at("models", name, "versions"), tuple[Version, ...])
    found = await visit.api.get("/diff", Diff, a=f"{name}:{a}", b=f"{name}:{b}") if a and b else None
    return visit.page("compare.html", name=name, versions=versions, a=a, b=b, d=found, told=told)


def told(value: Any) -> str:
    """A value of a document, for people: texts as they are, the rest as JSON."""
    if value is None:
        return "–"  # noqa: RUF001 - as in the other tables
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


async def readiness(visit: Visit) -> Response:
    """How ready a version is: the tests of the rubric, their evidence, what is missing."""
    where = at("models", visit.path("name"), "versions", visit.path("label"), "readiness")
    found = await visit.api.get(where, Readiness, environment=visit.query("environment"))
    return visit.page("readiness.html", r=found)
