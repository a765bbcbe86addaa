"""`/api/v1/experiments`: registering, running and reading experiments."""

import math
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import Field
from sqlalchemy import Row, select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_permission, needs
from penstock.control.context import Change, Control
from penstock.control.deploy.canaries import abort_canary
from penstock.control.deploy.canary_rows import canary_of
from penstock.control.experiments import life
from penstock.control.experiments.export import as_csv, exported
from penstock.control.experiments.kind import ExperimentKind
from penstock.control.experiments.life import experiment_row
from penstock.control.experiments.past import gather_past
from penstock.control.experiments.replay import replay
from penstock.control.experiments.samples import samples_of
from penstock.control.experiments.schema import design_schema
from penstock.control.specs.resources import Name, Spec
from penstock.experiments.declared import MOST_LOOKS
from penstock.experiments.design import TRANSITIONS, Design, parse_design
from penstock.experiments.group_sequential import inflation
from penstock.experiments.metrics import METRICS, metric
from penstock.experiments.pair_verdict import spec_of
from penstock.experiments.sample_size import plan_units
from penstock.store.schema_experiments import experiment_epochs, experiment_points, experiments

Reader = Annotated[Principal, Depends(needs("experiments:read"))]
Writer = Annotated[Principal, Depends(needs("experiments:write"))]

KIND = ExperimentKind()


class NewExperiment(Spec):
    """The body of POST: a name and the spec that `kind: Experiment` documents have."""

    kind: str | None = None
    name: Name
    spec: dict[str, Any]


class Reason(Spec):
    """Why somebody does what they do, for the record."""

    reason: str = ""


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


def summary(row: Row[Any], shares: dict[str, float]) -> dict[str, Any]:
    """What a list tells of an experiment."""
    design = parse_design(row.spec)
    verdict = row.verdict or {"state": "running", "reasons": []}
    decision = row.decision
    return {
        "name": row.name,
        "strategy": design.strategy,
        "route": design.route,
        "unit": design.unit,
        "hypothesis": design.hypothesis,
        "state": row.state,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "started_at": row.started_at,
        "decided_at": row.decided_at,
        "epoch": row.epoch,
        "step": row.step,
        "steps": list(design.plan.steps),
        "shares": _told_shares(design, row, shares)
        if row.state == "running"
        else ({row.serving: 1.0} if row.serving else {}),
        "control": design.incumbent,
        "arms": [arm.name for arm in design.arms],
        "serving": row.serving or None,
        "primary": msgspec.to_builtins(design.primary),
        "verdict": {
            "state": verdict["state"],
            "reasons": decision["reasons"] if decision is not None else verdict["reasons"],
        },
        "decision": decision,
    }


def _told_shares(design: Design, row: Row[Any], shares: dict[str, float]) -> dict[str, float]:
    """The arms' shares of the traffic; where a second arm answers too, the control has all, and the others the dose."""
    if not design.paired:
        return shares
    dose = spec_of(design).share if row.dose is None else row.dose
    return {design.incumbent: 1.0} | {arm: dose * share for arm, share in shares.items()}


async def _shares(control: Control, rows: list[Row[Any]]) -> dict[str, dict[str, float]]:
    """By experiment: the shares of its newest epoch."""
    if not rows:
        return {}
    async with control.database.read() as connection:
        epochs = await connection.execute(
            select(experiment_epochs)
            .where(experiment_epochs.c.experiment.in_([row.name for row in rows]))
            .order_by(experiment_epochs.c.epoch)
        )
        return {epoch.experiment: dict(epoch.shares) for epoch in epochs}


async def read_experiment(control: Control, name: str) -> dict[str, Any]:
    """All about one experiment.

    Raises:
        NotFound: if there is none.
    """
    async with control.database.read() as connection:
        row = await experiment_row(connection, name)
        epochs = (
            await connection.execute(
                select(experiment_epochs)
                .where(experiment_epochs.c.experiment == name)
                .order_by(experiment_epochs.c.epoch)
            )
        ).all()
        canary = await canary_of(connection, name)
    shares = dict(epochs[-1].shares) if epochs else {}
    design = parse_design(row.spec)
    told = summary(row, shares) | {
        "spec": row.spec,
        "resolved": row.resolved,
        "planned": design.planned()._asdict()
        | {"inference": design.plan.inference, "units": row.planned or design.planned_units()},
        "actions": sorted(TRANSITIONS[row.state]) if canary is None else _of_canary(row.state),
        "deployment": None if canary is None else canary.model,
        "expires_at": row.expires_at,
        "epochs": [{"epoch": one.epoch, "shares": dict(one.shares), "started_at": one.started_at} for one in epochs],
    }
    if row.verdict is not None:
        told["verdict"] = row.verdict | {"reasons": told["verdict"]["reasons"]}
    return told


def _of_canary(state: str) -> list[str]:
    """What may be done with the canary of a deployment as an experiment: it ends as a canary."""
    return sorted(set(TRANSITIONS[state]) & {"start", "pause"})


def experiments_router() -> APIRouter:
    """The routes, to stand below /api/v1."""
    router = APIRouter(prefix="/experiments", tags=["experiments"])
    _add_reading(router)
    _add_changing(router)
    return router


def _add_reading(router: APIRouter) -> None:
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
        shares = await _shares(control, rows)
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


async def _check_canary(change: Change, who: Principal, name: str) -> None:
    """See that `who` may change deployments, if the experiment is the canary of one.

    Raises:
        Forbidden: if it is one and they may not.
    """
    if await canary_of(change.connection, name) is not None:
        check_permission(who, "deployments:write")


async def _check_draft(change: Change, who: Principal, name: str) -> None:
    """See that `who` may change deployments, if the draft's verdict does so in their name, or an arm's policy takes the place of tenants' own.

    Raises:
        Forbidden: if it does and they may not.
    """
    row = await experiment_row(change.connection, name)
    design = parse_design(row.spec)
    if row.state == "draft" and (design.hooks is not None or any(arm.policy is not None for arm in design.arms)):
        check_permission(who, "deployments:write")


def _add_changing(router: APIRouter) -> None:
    schema = {
        "requestBody": {
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["name", "spec"],
                        "properties": {
                            "name": {"type": "string"},
                            "spec": design_schema(),
                        },
                    }
                }
            }
        }
    }

    @router.post("", status_code=201, openapi_extra=schema)
    async def create(control: ControlPart, who: Writer, body: NewExperiment) -> dict[str, Any]:
        """Register an experiment as a draft; the same spec again changes nothing."""
        async with control.change(who) as change:
            if await life.register(change, body.name, KIND.parse(body.spec)) == "unchanged":
                change.abandon()
        return await read_experiment(control, body.name)

    @router.post("/{name}/start")
    async def start(
        control: ControlPart, who: Writer, name: str, _body: Annotated[Reason | None, Body()] = None
    ) -> dict[str, Any]:
        """Start it, or go on after a pause. With hooks, with a policy of an arm's own, or of a deployment's canary this needs `deployments:write` too."""
        async with control.database.read() as connection:
            row = await experiment_row(connection, name)
        if row.state == "draft":
            await gather_past(control.database, name, parse_design(row.spec), control.clock())
        async with control.change(who) as change:
            await _check_canary(change, who, name)
            await _check_draft(change, who, name)
            await life.start(change, name, environment=control.settings.control.environment)
        return await read_experiment(control, name)

    @router.post("/{name}/pause")
    async def pause(
        control: ControlPart, who: Writer, name: str, body: Annotated[Reason | None, Body()] = None
    ) -> dict[str, Any]:
        """All traffic to the control until it is started again. Of a deployment's canary this needs `deployments:write` too."""
        async with control.change(who) as change:
            await _check_canary(change, who, name)
            await life.pause(change, name, body.reason if body is not None else "")
        return await read_experiment(control, name)

    @router.post("/{name}/stop")
    async def stop(
        control: ControlPart, who: Writer, name: str, body: Annotated[Reason | None, Body()] = None
    ) -> dict[str, Any]:
        """End it without waiting for a verdict."""
        async with control.change(who) as change:
            await life.stop(change, name, body.reason if body is not None else "")
        return await read_experiment(control, name)

    @router.post("/{name}/kill")
    async def kill(
        control: ControlPart, who: Writer, name: str, body: Annotated[Reason | None, Body()] = None
    ) -> dict[str, Any]:
        """The kill switch: it has ended, and all of its traffic is on the control until it is archived."""
        async with control.change(who) as change:
            await life.kill(change, name, body.reason if body is not None else "")
        return await read_experiment(control, name)

    @router.post("/kill")
    async def kill_all(
        control: ControlPart, who: Writer, body: Annotated[Reason | None, Body()] = None
    ) -> dict[str, Any]:
        """The kill switch of all that run or are paused, in one change. With deployments' canaries among them it needs `deployments:write`."""
        reason = body.reason if body is not None else ""
        async with control.change(who) as change:
            statement = select(experiments.c.name).where(experiments.c.state.in_(("running", "paused")))
            names = sorted((await change.connection.execute(statement)).scalars())
            for name in names:
                canary = await canary_of(change.connection, name)
                if canary is None:
                    await life.kill(change, name, reason)
                else:
                    check_permission(who, "deployments:write")
                    await abort_canary(change, canary, reason, block=False)
            if not names:
                change.abandon()
        return {"killed": names}

    @router.post("/{name}/archive")
    async def archive(
        control: ControlPart, who: Writer, name: str, _body: Annotated[Reason | None, Body()] = None
    ) -> dict[str, Any]:
        """Put it away."""
        async with control.change(who) as change:
            await life.archive(change, name)
        return await read_experiment(control, name)
