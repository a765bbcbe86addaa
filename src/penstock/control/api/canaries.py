"""/api/v1/canaries: trying out a version on a share of the traffic, watching it, and ending it by hand."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Query
from pydantic import Field
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.context import Control
from penstock.control.deploy.blocks import standing_blocks
from penstock.control.deploy.canaries import CanaryWish, abort_canary, begin_canary, find_canary, promote_canary
from penstock.control.experiments.life import experiment_row
from penstock.control.experiments.store import load_statistics
from penstock.control.specs.canary import CanarySpec
from penstock.control.specs.resources import Name, Precision, Spec
from penstock.control.versions.find import reference_in
from penstock.delivery.watch import Watched, silent
from penstock.experiments.canary import CANARY
from penstock.experiments.design import parse_design
from penstock.experiments.ramp import Standing, next_move
from penstock.experiments.verdict import judge
from penstock.store.schema import revisions
from penstock.store.schema_delivery import canaries, watched
from penstock.store.schema_experiments import experiment_epochs

router = APIRouter(prefix="/canaries", tags=["deployments"])
Reader = Annotated[Principal, Depends(needs("deployments:read"))]
Writer = Annotated[Principal, Depends(needs("deployments:write"))]
_NEWEST = (revisions.c.created_at.desc(), revisions.c.number.desc())


class CanaryBody(Spec):
    """The body of POST /canaries."""

    model: Name
    label: str = Field(description="A label, a digest, or @ENVIRONMENT: what that environment serves.")
    environment: Name = "production"
    precision: Precision | None = Field(default=None, description="Left out: as the incumbent's.")
    replicas: int | None = Field(default=None, ge=1, le=64, description="Left out: as the incumbent's.")
    reason: str = Field(default="", max_length=4096)
    override: str = Field(
        default="",
        max_length=4096,
        description="Why it is let in though gates are not passed. Administrators alone may; it stands in the record.",
    )
    plan: CanarySpec = Field(
        default=CanarySpec(), description="What differs from the environment's plan; left out: nothing."
    )


class EndBody(Spec):
    """The body of POST /canaries/{name}/abort and /promote."""

    reason: str = Field(default="", max_length=4096)
    block: bool = Field(
        default=False, description="Of abort: keep the version out of the environment until it is cleared."
    )
    override: str = Field(
        default="",
        max_length=4096,
        description="Of promote: why it is let in though its gates are not passed any more. Administrators alone may.",
    )


@router.get("")
async def list_canaries(
    control: ControlPart,
    _who: Reader,
    model: str | None = None,
    environment: str | None = None,
    state: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Canaries, newest first, each with where it stands."""
    statement = select(canaries.c.experiment).join(revisions, revisions.c.id == canaries.c.revision)
    for column, value in (
        (canaries.c.model, model),
        (canaries.c.environment, environment),
        (canaries.c.state, state),
    ):
        if value is not None:
            statement = statement.where(column == value)
    async with control.database.read() as connection:
        names = (await connection.execute(statement.order_by(*_NEWEST).limit(limit))).scalars()
        return [_summary(*(await _rows(connection, name))) for name in list(names)]


@router.post("", status_code=201)
async def start(body: CanaryBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Try out a version: it gets the first step of its plan as soon as its replicas are ready."""
    wish = CanaryWish(
        reference=reference_in(body.model, body.label),
        environment=body.environment,
        plan=body.plan.model_dump(exclude_unset=True),
        precision=body.precision,
        replicas=body.replicas,
        reason=body.reason,
        override=body.override,
    )
    async with control.change(who) as change:
        name = await begin_canary(change, wish, own_environment=control.settings.control.environment)
    return await read_canary(control, name)


@router.get("/{name}")
async def show(name: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """One canary, by its name, or the newest of a model: shares, evidence, verdict in words, and what it waits for."""
    return await read_canary(control, name)


@router.post("/{name}/abort")
async def abort(
    name: str, control: ControlPart, who: Writer, body: Annotated[EndBody | None, Body()] = None
) -> dict[str, Any]:
    """The kill switch: all traffic on the incumbent, now."""
    asked = body or EndBody()
    async with control.change(who) as change:
        canary = await find_canary(change.connection, name, running=True)
        await abort_canary(change, canary, asked.reason, block=asked.block)
    return await read_canary(control, canary.experiment)


@router.post("/{name}/promote")
async def promote(
    name: str, control: ControlPart, who: Writer, body: Annotated[EndBody | None, Body()] = None
) -> dict[str, Any]:
    """Give it all of the traffic without waiting for its plan."""
    asked = body or EndBody()
    async with control.change(who) as change:
        canary = await find_canary(change.connection, name, running=True)
        said = f"Promoted by {who.name} before its plan was done{': ' + asked.reason if asked.reason else ''}."
        await promote_canary(change, canary, (said,), asked.override)
    return await read_canary(control, canary.experiment)


async def read_canary(control: Control, name: str) -> dict[str, Any]:
    """All about one canary.

    Raises:
        NotFound: if there is none.
    """
    now = control.clock()
    async with control.database.read() as connection:
        found = (await find_canary(connection, name)).experiment
        canary, revision, incumbent, row, shares = await _rows(connection, found)
        told = _summary(canary, revision, incumbent, row, shares)
        design = parse_design(row.spec)
        statistics = await load_statistics(connection, found)
        since = (
            await connection.execute(
                select(experiment_epochs.c.started_at).where(
                    experiment_epochs.c.experiment == found, experiment_epochs.c.epoch == row.epoch
                )
            )
        ).scalar_one()
        epochs = await connection.execute(
            select(experiment_epochs).where(experiment_epochs.c.experiment == found).order_by(experiment_epochs.c.epoch)
        )
        ramp = [{"epoch": e.epoch, "share": e.shares[CANARY], "started_at": e.started_at} for e in epochs]
        blocks = await standing_blocks(connection, canary.environment, canary.model)
        seen = [
            Watched(journal=w.journal, host=w.host, worker=w.worker, reported_at=w.reported_at, heard_at=w.heard_at)
            for w in await connection.execute(select(watched))
        ]
    verdict = judge(design, statistics, now)
    waits: tuple[str, ...] = ()
    unheard: list[str] = []
    if canary.state == "running" and row.state == "running":
        unheard = silent(seen, now, design.plan.lapse_s / 3)
        move = next_move(design, statistics, verdict, Standing(epoch=row.epoch, step=row.step, since=since), now)
        waits = move.reasons if move.kind == "hold" else ()
        if unheard:
            waits = (f"Nobody reads the journal of {', '.join(unheard)}: its share is not renewed.", *waits)
    stored = row.verdict if canary.state != "running" and row.verdict else msgspec.to_builtins(verdict)
    return told | {
        "plan": canary.plan,
        "ramp": ramp,
        "verdict": {"state": stored["state"], "reasons": list(stored["reasons"])},
        "comparisons": stored["comparisons"],
        "guardrails": stored["guardrails"],
        "arms": stored["arms"],
        "waits": list(waits),
        "unheard": unheard,
        "lapsed": canary.state == "running" and row.state == "running" and now >= (row.expires_at or 0.0),
        "blocked": any(block.digest == revision.digest for block in blocks),
    }


async def _rows(
    connection: AsyncConnection, name: str
) -> tuple[Row[Any], Row[Any], Row[Any], Row[Any], dict[str, float]]:
    """The canary, its revision, the incumbent's, its experiment, and the shares of the newest epoch."""
    canary = (await connection.execute(select(canaries).where(canaries.c.experiment == name))).one()
    ids = (canary.revision, canary.incumbent)
    found = {r.id: r for r in await connection.execute(select(revisions).where(revisions.c.id.in_(ids)))}
    row = await experiment_row(connection, name)
    shares = await connection.execute(
        select(experiment_epochs.c.shares)
        .where(experiment_epochs.c.experiment == name)
        .order_by(experiment_epochs.c.epoch.desc())
        .limit(1)
    )
    return canary, found[canary.revision], found[canary.incumbent], row, dict(shares.scalar_one())


def _summary(
    canary: Row[Any], revision: Row[Any], incumbent: Row[Any], row: Row[Any], shares: dict[str, float]
) -> dict[str, Any]:
    """What a list tells of a canary. `share` is what it gets of the traffic now."""
    share = {"promoted": 1.0, "running": shares[CANARY] if row.state == "running" else 0.0}.get(canary.state, 0.0)
    return {
        "name": canary.experiment,
        "model": canary.model,
        "environment": canary.environment,
        "label": revision.label,
        "digest": revision.digest,
        "revision": revision.number,
        "incumbent": incumbent.label,
        "route": row.route,
        "state": "paused" if canary.state == "running" and row.state == "paused" else canary.state,
        "share": share,
        "step": row.step + 1,
        "steps": canary.plan["steps"],
        "reason": revision.reason,
        "started_at": row.started_at,
        "started_by": revision.principal,
        "expires_at": row.expires_at if canary.state == "running" else None,
        "ended_at": canary.ended_at,
        "ended_by": canary.ended_by,
        "words": canary.words,
    }
