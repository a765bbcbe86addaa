"""/api/v1/builds and the builds of versions: made, listed, cancelled, signed; and the table of what each precision costs."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.api.jobs import newest_jobs, told_job
from penstock.control.auth import ControlPart, needs
from penstock.control.context import Change
from penstock.control.specs.resources import Precision, Spec
from penstock.control.versions.build_jobs import cancel_job, find_build, find_job, request_build
from penstock.control.versions.find import find_version, reference_in
from penstock.control.versions.tradeoff import Option, ask_measurements, distilled_without_builds, read_tradeoff
from penstock.registry.making import WIDEST, weights_folder
from penstock.registry.manifest import read_manifest
from penstock.registry.tradeoff import usd_per_thousand
from penstock.store.schema import builds
from penstock.store.schema_builds import build_jobs

router = APIRouter(tags=["builds"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]
Price = Annotated[
    float | None, Query(ge=0, le=1e6, description="What an hour of the machine costs; left out: the setting.")
]


class BuildBody(Spec):
    """The body of POST /models/{name}/versions/{label}/builds."""

    engine: Literal["openvino"] = "openvino"
    precision: Precision = Field(default="int8", description="Of matrices.")
    measure: bool = Field(
        default=True, description="Measure speed and quality, of the widest build of the version too, once it is there."
    )


def job_answer(row: Row[Any]) -> dict[str, Any]:
    """A job as the API tells it; `steps` with the seconds that each took, the last one's until the job ended, or null."""
    told = told_job(build_jobs, row, left_out={"steps"})
    ends = [*(step["at"] for step in row.steps[1:]), row.finished_at]
    told["steps"] = [
        {**step, "seconds": round(end - step["at"], 3) if end is not None else None}
        for step, end in zip(row.steps, ends, strict=False)
    ]
    return told


@router.get("/builds")
async def list_builds(
    control: ControlPart,
    _who: Reader,
    model: str | None = None,
    label: str | None = None,
    state: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Jobs that make or made builds, newest first."""
    statement = newest_jobs(build_jobs, model=model, label=label, state=state, limit=limit)
    async with control.database.read() as connection:
        return [job_answer(row) for row in await connection.execute(statement)]


@router.get("/builds/{identity}")
async def show_build(identity: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """One job: where it stands, what it did and how long that took."""
    async with control.database.read() as connection:
        return job_answer(await find_job(connection, identity))


@router.post("/builds/{identity}/cancel")
async def cancel(identity: str, control: ControlPart, who: Writer) -> dict[str, Any]:
    """End a job that waits or runs."""
    async with control.deed(who) as change:
        return job_answer(await cancel_job(change, identity))


@router.get("/models/{name}/versions/{label}/builds")
async def builds_of_version(name: str, label: str, control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """The builds of a version: brought with it, or made of its weights here."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        mine = select(builds).where(builds.c.model == version.model, builds.c.label == version.label)
        found = {row.precision: row for row in await connection.execute(mine)}
        return [_build(found[precision]) for precision in WIDEST if precision in found]


@router.post("/models/{name}/versions/{label}/builds", status_code=201)
async def make_build(name: str, label: str, body: BuildBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Have a build made of a version's weights: the job, which may be done or under way already."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(name, label))
        return job_answer(await request_build(change, version, body.engine, body.precision, measure=body.measure))


@router.get("/models/{name}/versions/{label}/tradeoff")
async def tradeoff(
    name: str, label: str, control: ControlPart, _who: Reader, usd_per_hour: Price = None
) -> dict[str, Any]:
    """What each precision of a version, and each version distilled from it, costs and gains, as far as it is measured."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        return await _tradeoff(control, connection, version, usd_per_hour)


@router.post("/models/{name}/versions/{label}/tradeoff", status_code=201)
async def complete_tradeoff(
    name: str,
    label: str,
    control: ControlPart,
    who: Writer,
    usd_per_hour: Price = None,
    build: Annotated[bool, Query(description="Whether precisions that there is no build of are built.")] = True,
) -> dict[str, Any]:
    """Have built and measured what the table lacks. `asked` are the ids of jobs and evaluations that are under way for it."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(name, label))
        jobs = await _request_missing(change, version) if build else []
        measured = await ask_measurements(change, version)
        told = await _tradeoff(control, change.connection, version, usd_per_hour)
    return told | {"asked": {"builds": jobs, "evaluations": measured}}


async def _request_missing(change: Change, version: Any) -> list[str]:
    jobs: list[str] = []
    for other in [version, *await distilled_without_builds(change.connection, version)]:
        if weights_folder(read_manifest(other.manifest, other.digest)) is None:
            continue
        for precision in WIDEST if other is version else ("int8",):
            if await find_build(change.connection, other, precision) is None:
                job = await request_build(change, other, "openvino", precision, measure=True)
                jobs.append(job.id)
    return jobs


async def _tradeoff(
    control: ControlPart, connection: AsyncConnection, version: Any, usd_per_hour: float | None
) -> dict[str, Any]:
    price = control.settings.control.machine_usd_per_hour if usd_per_hour is None else usd_per_hour
    return {
        "model": version.model,
        "label": version.label,
        "digest": version.digest,
        "usd_per_hour": price or None,
        "options": [_option(one, price) for one in await read_tradeoff(connection, version)],
    }


def _option(option: Option, price: float) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(option)
    cost = usd_per_thousand(option.speed.seconds_per_answer, price) if option.speed is not None and price else None
    return told | {"usd_per_1000_answers": cost}


def _build(row: Row[Any]) -> dict[str, Any]:
    return {
        "precision": row.precision,
        "engine": row.engine,
        "folder": row.folder,
        "digest": row.digest,
        "size": row.size,
        "created_at": row.created_at,
        "made": row.manifest is not None,
        "job": row.job,
    }
