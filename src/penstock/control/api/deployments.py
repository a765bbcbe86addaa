"""/api/v1/promote, /rollback, /deployments, /revisions and the history of a model."""

import asyncio
import time
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query
from pydantic import Field, model_validator
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.api.system import PublisherPart
from penstock.control.auth import ControlPart, needs
from penstock.control.context import Control
from penstock.control.deploy.blocks import block_version
from penstock.control.deploy.publisher import Publisher
from penstock.control.deploy.record import Promotion, promote, roll_back
from penstock.control.deploy.rows import live_revision
from penstock.control.specs.resources import Name, Precision, Spec
from penstock.control.versions.find import reference_in
from penstock.core.errors import NotFound
from penstock.store.schema import deployments, revisions

router = APIRouter(tags=["deployments"])
Reader = Annotated[Principal, Depends(needs("deployments:read"))]
Writer = Annotated[Principal, Depends(needs("deployments:write"))]
Wait = Annotated[float, Query(ge=0, le=600, description="Seconds to wait for the revision to be live, or to fail.")]
_LOOK_S = 0.25


class PromoteBody(Spec):
    """The body of POST /promote."""

    model: Name
    label: str = Field(description="A label, a digest, or @ENVIRONMENT: what that environment serves.")
    environment: Name = "production"
    precision: Precision | None = Field(default=None, description="Left out: as now, else int8.")
    replicas: int | None = Field(default=None, ge=1, le=64, description="Left out: as now, else 1.")
    reason: str = Field(default="", max_length=4096)
    generation: int | None = Field(
        default=None, description="Of the deployment, as you saw it: refused if it has changed."
    )
    override: str = Field(
        default="",
        max_length=4096,
        description="Why it is let in though gates are not passed. Administrators alone may; it stands in the record.",
    )


class RollbackBody(Spec):
    """The body of POST /rollback."""

    model: Name
    environment: Name = "production"
    to: str | None = Field(
        default=None, description="A revision's number or a label; left out: the state before this one."
    )
    reason: str = Field(default="", max_length=4096)
    generation: int | None = None
    block: bool = Field(
        default=False,
        description="Keep what is gone back from out of the environment until somebody clears it; needs a reason.",
    )

    @model_validator(mode="after")
    def _why(self) -> Self:
        if self.block and not self.reason:
            raise ValueError("'block' needs a 'reason', for whoever meets the block")
        return self


def revision_answer(row: Any) -> dict[str, Any]:
    """A revision as the API tells it."""
    return {
        "id": row.id,
        "environment": row.environment,
        "model": row.model,
        "number": row.number,
        "action": row.action,
        "label": row.label,
        "digest": row.digest,
        "config": row.config,
        "state": row.state,
        "detail": row.detail,
        "reason": row.reason,
        "principal": row.principal,
        "previous": row.previous,
        "source": row.source,
        "created_at": row.created_at,
        "live_at": row.live_at,
    }


@router.post("/promote", status_code=201)
async def post_promote(
    body: PromoteBody, control: ControlPart, publisher: PublisherPart, who: Writer, wait: Wait = 0.0
) -> dict[str, Any]:
    """Let an environment run a version: a new revision, pending until its replicas are ready, then live."""
    wish = Promotion(
        reference=reference_in(body.model, body.label),
        environment=body.environment,
        precision=body.precision,
        replicas=body.replicas,
        reason=body.reason,
        generation=body.generation,
        override=body.override,
    )
    async with control.change(who) as change:
        row = await promote(change, wish, own_environment=control.settings.control.environment)
    return await _settled(control, publisher, row, wait)


@router.post("/rollback", status_code=201)
async def post_rollback(
    body: RollbackBody, control: ControlPart, publisher: PublisherPart, who: Writer, wait: Wait = 0.0
) -> dict[str, Any]:
    """Go back to an earlier whole state, by a new revision that copies it."""
    async with control.change(who) as change:
        left = await live_revision(change.connection, body.environment, body.model) if body.block else None
        row = await roll_back(
            change,
            body.model,
            body.environment,
            own_environment=control.settings.control.environment,
            to=body.to,
            reason=body.reason,
            generation=body.generation,
            leaves_live=body.block,
        )
        if left is not None and left.digest != row.digest:
            await block_version(
                change,
                environment=body.environment,
                model=body.model,
                label=left.label,
                digest=left.digest,
                reason=body.reason,
            )
    return await _settled(control, publisher, row, wait)


async def _settled(control: Control, publisher: Publisher, row: Any, wait_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    while row.state == "pending" and (left := deadline - time.monotonic()) > 0:
        current = publisher.current
        if current is None:
            await asyncio.sleep(_LOOK_S)
        else:
            await publisher.newer(current.generation, min(left, _LOOK_S))
        async with control.database.read() as connection:
            row = await _find(connection, row.id)
    return revision_answer(row)


async def _find(connection: AsyncConnection, identity: str) -> Any:
    row = (await connection.execute(select(revisions).where(revisions.c.id == identity))).one_or_none()
    if row is None:
        raise NotFound(f"There is no revision {identity!r}.")
    return row


@router.get("/revisions/{identity}")
async def show_revision(
    identity: str, control: ControlPart, publisher: PublisherPart, _who: Reader, wait: Wait = 0.0
) -> dict[str, Any]:
    """One revision."""
    async with control.database.read() as connection:
        row = await _find(connection, identity)
    return await _settled(control, publisher, row, wait)


@router.get("/models/{name}/history")
async def history(
    name: str, control: ControlPart, _who: Reader, environment: str | None = None
) -> list[dict[str, Any]]:
    """Every revision of a model, newest first."""
    statement = select(revisions).where(revisions.c.model == name)
    if environment is not None:
        statement = statement.where(revisions.c.environment == environment)
    async with control.database.read() as connection:
        rows = await connection.execute(statement.order_by(revisions.c.created_at.desc(), revisions.c.number.desc()))
        return [revision_answer(row) for row in rows]


@router.get("/deployments")
async def list_deployments(
    control: ControlPart, _who: Reader, model: str | None = None, environment: str | None = None
) -> list[dict[str, Any]]:
    """What each environment runs: the live revision, and the one that is wanted if it is another."""
    statement = select(deployments).order_by(deployments.c.environment, deployments.c.model)
    if model is not None:
        statement = statement.where(deployments.c.model == model)
    if environment is not None:
        statement = statement.where(deployments.c.environment == environment)
    async with control.database.read() as connection:
        pointers = (await connection.execute(statement)).all()
        ids = {i for pointer in pointers for i in (pointer.wanted, pointer.live, pointer.warm) if i is not None}
        rows = await connection.execute(select(revisions).where(revisions.c.id.in_(ids)))
        known = {row.id: row for row in rows}
    return [_deployment(pointer, known) for pointer in pointers]


def _deployment(pointer: Any, known: dict[str, Any]) -> dict[str, Any]:
    wanted = known[pointer.wanted]
    shown = known.get(pointer.live, wanted)
    return {
        **revision_answer(shown),
        "generation": pointer.generation,
        "revision": shown.id,
        "wanted": wanted.label if wanted.id != shown.id else None,
        "wanted_revision": wanted.id,
        "warm": known[pointer.warm].label if pointer.warm is not None else None,
        "detail": wanted.detail,
    }
