"""`POST /api/v1/experiments`: registering experiments, and what is done with them."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_permission, needs
from penstock.control.context import Change
from penstock.control.deploy.canaries import abort_canary
from penstock.control.deploy.canary_rows import canary_of
from penstock.control.experiments import life
from penstock.control.experiments.kind import ExperimentKind
from penstock.control.experiments.life import experiment_row
from penstock.control.experiments.past import gather_past
from penstock.control.experiments.schema import design_schema
from penstock.control.experiments.told import read_experiment
from penstock.control.specs.resources import Name, Spec
from penstock.experiments.design import parse_design
from penstock.store.schema_experiments import experiments

router = APIRouter(prefix="/experiments", tags=["experiments"])
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


def _body_of_new() -> dict[str, Any]:
    spec = {
        "type": "object",
        "required": ["name", "spec"],
        "properties": {"name": {"type": "string"}, "spec": design_schema()},
    }
    return {"requestBody": {"content": {"application/json": {"schema": spec}}}}


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


@router.post("", status_code=201, openapi_extra=_body_of_new())
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
async def kill_all(control: ControlPart, who: Writer, body: Annotated[Reason | None, Body()] = None) -> dict[str, Any]:
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
