"""`GET /api/v1/experiments`: reading experiments, and planning one."""

import math
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.api.experiment_deeds import router as deeds
from penstock.control.auth import ControlPart, needs
from penstock.control.experiments.export import as_csv, exported
from penstock.control.experiments.life import experiment_row
from penstock.control.experiments.replay import replay
from penstock.control.experiments.samples import samples_of
from penstock.control.experiments.told import newest_shares, read_experiment, summary
from penstock.control.specs.resources import Spec
from penstock.experiments.declared import MOST_LOOKS
from penstock.experiments.design import parse_design
from penstock.experiments.group_sequential import inflation
from penstock.experiments.metrics import METRICS, metric
from penstock.experiments.sample_size import plan_units
from penstock.store.schema_experiments import experiment_points, experiments

router = APIRouter(prefix="/experiments", tags=["experiments"])
Reader = Annotated[Principal, Depends(needs("experiments:read"))]


def experiments_router() -> APIRouter:
    """All routes of experiments, to stand below /api/v1."""
    whole = APIRouter()
    whole.include_router(router)
    whole.include_router(deeds)
    return whole


class PowerQuestion(Spec):
    """What to plan for; `minimum_effect` in the metric's own unit."""

    metric: str = "success"
    minimum_effect: float
    baseline: float | None = None
    deviation: float | None = None
    alpha: float = 0.05
    power: float = 0.8
    arms: int = 2
    looks: Annotated[int, Field(ge=1, le=MOST_LOOKS)] = 5


@router.get("")
async def list_experiments(
    control: ControlPart, _who: Reader, state: str | None = None, route: str | None = None
) -> dict[str, Any]:
    """All experiments, newest first."""
    statement = select(experiments).order_by(experiments.c.created_at.desc(), experiments.c.name)
    if state is not None:
        statement = statement.where(experiments.c.state == state)
    if route is not None:
        statement = statement.where(experiments.c.route == route)
    async with control.database.read() as connection:
        rows = list((await connection.execute(statement)).all())
    shares = await newest_shares(control, rows)
    return {"experiments": [summary(row, shares.get(row.name, {})) for row in rows]}


@router.get("/metrics")
async def list_metrics(_who: Reader) -> dict[str, Any]:
    """What can be measured, and how each metric is defined."""
    return {"metrics": [msgspec.to_builtins(one) for one in METRICS.values()]}


@router.post("/power")
async def power(_who: Reader, body: PowerQuestion) -> dict[str, Any]:
    """How many units an arm needs: for one look at the end, for planned looks, and for an experiment that is watched."""
    plan = plan_units(
        proportion=metric(body.metric, "metric").type == "proportion",
        baseline=body.baseline,
        deviation=body.deviation,
        effect=body.minimum_effect,
        alpha=(alpha := body.alpha / max(1, body.arms - 1)),
        power=body.power,
    )
    few = math.ceil(plan.fixed * inflation(body.looks, alpha, body.power))
    each = {"fixed": plan.fixed, "group_sequential": few, "always_valid": plan.always_valid}
    return {"units_per_arm": each, "units": {kind: units * body.arms for kind, units in each.items()}}


@router.get("/{name}")
async def get_experiment(control: ControlPart, _who: Reader, name: str) -> dict[str, Any]:
    """One experiment: what was registered, where it stands, and the verdict with all estimates."""
    return await read_experiment(control, name)


@router.get("/{name}/verdict")
async def get_verdict(control: ControlPart, _who: Reader, name: str) -> dict[str, Any]:
    """The verdict alone."""
    told = await read_experiment(control, name)
    return {"name": name, "state": told["state"], "verdict": told["verdict"], "decision": told["decision"]}


@router.get("/{name}/export")
async def export(
    control: ControlPart,
    _who: Reader,
    name: str,
    format: Annotated[Literal["json", "csv"], Query()] = "json",  # noqa: A002 - what the caller writes
    table: Annotated[str, Query(description="Of CSV: which table.")] = "comparisons",
) -> Response:
    """All of it, to take away: one JSON document, or one of its tables as CSV (comparisons, points, arms, guardrails, epochs)."""
    document = await exported(control, await read_experiment(control, name))
    kind, content = ("application/json", msgspec.json.encode(document).decode())
    if format == "csv":
        kind, content = "text/csv; charset=utf-8", as_csv(document, table)
    ending = f"{name}.json" if format == "json" else f"{name}-{table}.csv"
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{ending}"'})


@router.get("/{name}/replay")
async def get_replay(
    control: ControlPart, _who: Reader, name: str, verdicts: Annotated[int, Query(ge=1, le=1000)] = 20
) -> dict[str, Any]:
    """Fold its stored records again in ingest order: the verdicts on the way, and whether counts and verdict are those that are stored, bit for bit."""
    found: dict[str, Any] = msgspec.to_builtins(await replay(control.database, name, verdicts=verdicts))
    return found


@router.get("/{name}/samples")
async def get_samples(
    control: ControlPart, _who: Reader, name: str, limit: Annotated[int, Query(ge=1, le=50)] = 5
) -> dict[str, Any]:
    """Requests whose content was kept, by arm or pair by pair; `GET /requests/{id}/content` opens them for those who may."""
    async with control.database.read() as connection:
        await experiment_row(connection, name)
        return {"samples": await samples_of(connection, name, limit=limit)}


@router.get("/{name}/points")
async def get_points(
    control: ControlPart, _who: Reader, name: str, metric: Annotated[str | None, Query()] = None
) -> dict[str, Any]:
    """The estimates over time, oldest first; without `metric` those of the primary one."""
    async with control.database.read() as connection:
        row = await experiment_row(connection, name)
        table = experiment_points
        found = await connection.execute(
            select(table)
            .where(
                table.c.experiment == name,
                table.c.metric == (metric or parse_design(row.spec).primary.metric),
            )
            .order_by(table.c.at, table.c.arm)
        )
        points = [{k: v for k, v in one._mapping.items() if k != "experiment"} for one in found]  # noqa: SLF001 - public, by its documentation
    return {"points": points}
