"""/api/v1/pipelines: from files to production, step by step; begun, watched, cancelled."""

import asyncio
import hashlib
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import Field
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_permission, needs
from penstock.control.context import Control
from penstock.control.pipelines.rows import (
    PipelineWish,
    Plan,
    begin_pipeline,
    cancel_pipeline,
    find_pipeline,
    tell_pipelines,
)
from penstock.control.specs.canary import CanarySpec
from penstock.control.specs.resources import ENVIRONMENTS, Name, Precision, Spec
from penstock.store.schema_pipelines import pipelines

router = APIRouter(prefix="/pipelines", tags=["deployments"])
Reader = Annotated[Principal, Depends(needs("deployments:read"))]
Writer = Annotated[Principal, Depends(needs("deployments:write"))]
_LOOK_S = 0.2


class PipelineBody(Spec):
    """The body of POST /pipelines."""

    model: Name
    label: str = Field(min_length=1, max_length=128)
    digest: str = Field(
        pattern="^sha256:[0-9a-f]{64}$",
        description="Of the version's manifest: the files that are pushed, or are to be.",
    )
    environments: list[Name] = Field(
        default=list(ENVIRONMENTS), min_length=1, max_length=16, description="In the order in which they are passed."
    )
    precision: Precision | None = Field(
        default=None, description="Left out: what runs there now, else int8, if there is one."
    )
    replicas: int | None = Field(default=None, ge=1, le=64, description="Left out: as now, else 1.")
    canary: CanarySpec = Field(
        default=CanarySpec(), description="What differs from the environment's plan; left out: nothing."
    )
    patience_s: float = Field(
        default=86400.0,
        ge=0,
        le=30 * 86400,
        description="How long approvals, signatures and cards are waited for; 0: not at all.",
    )
    reason: str = Field(default="", max_length=4096)


class CancelBody(Spec):
    """The body of POST /pipelines/{id}/cancel."""

    reason: str = Field(default="", max_length=4096)


@router.get("")
async def list_pipelines(
    control: ControlPart,
    _who: Reader,
    model: str | None = None,
    label: str | None = None,
    state: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[dict[str, Any]]:
    """Pipelines, newest first, each with its steps."""
    statement = select(pipelines).order_by(pipelines.c.created_at.desc(), pipelines.c.id.desc()).limit(limit)
    for column, value in ((pipelines.c.model, model), (pipelines.c.label, label), (pipelines.c.state, state)):
        if value is not None:
            statement = statement.where(column == value)
    async with control.database.read() as connection:
        return await tell_pipelines(connection, (await connection.execute(statement)).all())


@router.post("", status_code=201)
async def begin(body: PipelineBody, control: ControlPart, who: Writer, response: Response) -> dict[str, Any]:
    """Begin one; 200 with the one that runs, or is done, if these files are on their way already by the same plan."""
    check_permission(who, "models:write")
    wish = PipelineWish(
        model=body.model,
        label=body.label,
        digest=body.digest,
        plan=Plan(
            environments=tuple(body.environments),
            precision=body.precision,
            replicas=body.replicas,
            canary=body.canary.model_dump(mode="json", exclude_unset=True),
            patience_s=body.patience_s,
            reason=body.reason,
        ),
    )
    async with control.deed(who) as change:
        identity, new = await begin_pipeline(change, wish, served=control.settings.control.environment)
    if not new:
        response.status_code = 200
    return await _read(control, identity)


@router.get("/{identity}")
async def show(
    identity: str,
    control: ControlPart,
    _who: Reader,
    than: Annotated[
        str, Query(max_length=64, description="The `mark` of an earlier answer: this one is another.")
    ] = "",
    wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait for another one.")] = 0.0,
) -> dict[str, Any]:
    """One pipeline: its steps as they pass, with the reason in words where one was refused."""
    found = await _read(control, identity)
    for _ in range(int(wait / _LOOK_S)):
        if found["mark"] != than or found["state"] != "running":
            break
        await asyncio.sleep(_LOOK_S)
        found = await _read(control, identity)
    return found


@router.post("/{identity}/cancel")
async def cancel(
    identity: str, control: ControlPart, who: Writer, body: Annotated[CancelBody | None, Body()] = None
) -> dict[str, Any]:
    """End it where it is: a canary that it began is taken back; what is live stays."""
    async with control.change(who) as change:
        await cancel_pipeline(change, identity, body.reason if body is not None else "")
    return await _read(control, identity)


async def _read(control: Control, identity: str) -> dict[str, Any]:
    async with control.database.read() as connection:
        [told] = await tell_pipelines(connection, [await find_pipeline(connection, identity)])
    return told | {"mark": hashlib.blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()}
