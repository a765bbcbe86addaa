"""Pipelines as rows: begun, read, told, cancelled. What moves them on is `loop`."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.canary_rows import canary_of, take_back
from penstock.control.gates.evaluations import UNDER_WAY
from penstock.control.gates.evaluations import cancel as cancel_evaluation
from penstock.control.pipelines.builder import cancel_build
from penstock.control.versions.rows import find_row, taken
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.delivery.pipeline import plan_steps
from penstock.store.schema import resources
from penstock.store.schema_gates import evaluations
from penstock.store.schema_pipelines import pipeline_steps, pipelines
from penstock.store.sql import next_value

_SEQUENCE = "pipelines"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a pipeline was asked for.

    Attributes:
        environments: in order.
        precision: of the build; None: as runs there now, else int8, else what there is.
        replicas: None: as now, else 1.
        canary: what differs from the environment's canary plan.
        patience_s: how long people (approval, signature, card) are waited for.
        reason: why, for the history.
    """

    environments: tuple[str, ...] = ("dev", "staging", "production")
    precision: str | None = None
    replicas: int | None = None
    canary: dict[str, Any] = {}
    patience_s: float = 86400.0
    reason: str = ""


class PipelineWish(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline that somebody wants: of which files, under which name, and where to."""

    model: str
    label: str
    digest: str
    plan: Plan


async def begin_pipeline(change: Change, wish: PipelineWish, *, served: str) -> tuple[str, bool]:
    """The id of the pipeline that takes these files there, and whether it is new: one that runs or is done by the same plan is it.

    Args:
        change: under way; its caller is whose authority the pipeline has.
        wish: what is wanted.
        served: the environment whose traffic gateways serve.

    Raises:
        BadRequest: if there is no such environment, or one is named twice.
        Conflict: if the label is taken by other files, or a pipeline of theirs runs by another plan.
    """
    connection = change.connection
    await next_value(connection, _SEQUENCE)  # who begins the same at the same time waits here, and finds what was begun
    await _check_environments(connection, wish.plan.environments)
    version = await find_row(connection, wish.model, wish.label)
    if version is not None and (version.digest != wish.digest or version.state == "deleted"):
        raise taken(wish.model, wish.label, deleted=version.state == "deleted")
    plan = msgspec.json.decode(msgspec.json.encode(wish.plan))  # as the database gives it back
    for row in await _of(connection, wish.model, wish.label):
        if row.state == "running" and (row.digest != wish.digest or row.plan != plan):
            what = "by another plan" if row.digest == wish.digest else "with other files"
            raise Conflict(
                f"The pipeline {row.id} of {wish.model}:{wish.label} runs already, {what}.",
                code="pipeline_running",
                param="label",
                hint=f"penstock pipeline show {row.id} --follow watches it; penstock pipeline cancel {row.id} ends it.",
            )
        if row.state == "running" or (row.state == "done" and row.digest == wish.digest and row.plan == plan):
            return row.id, False
    identity = change.new_id("pipe")
    await connection.execute(
        insert(pipelines).values(
            id=identity,
            model=wish.model,
            label=wish.label,
            digest=wish.digest,
            plan=plan,
            state="running",
            detail="",
            principal=change.caller.name,
            key=change.caller.key,
            created_at=change.now,
        )
    )
    for number, (kind, environment) in enumerate(plan_steps(wish.plan.environments, served=served), 1):
        await connection.execute(
            insert(pipeline_steps).values(
                pipeline=identity,
                number=number,
                kind=kind,
                environment=environment,
                state="running" if number == 1 else "waiting",
                detail="",
                outcomes=[],
                evaluations={"asked": [], "made": []},
                build="",
                revision="",
                canary="",
                asks=0,
                turn=0,
                started_at=change.now if number == 1 else None,
            )
        )
    await change.audit(
        "pipeline.start",
        f"{wish.model}:{wish.label}",
        pipeline=identity,
        digest=wish.digest,
        environments=list(wish.plan.environments),
        reason=wish.plan.reason,
    )
    return identity, True


async def cancel_pipeline(change: Change, identity: str, reason: str) -> None:
    """End the pipeline where it is: its canary is taken back, evaluations that it had made and that are not done are cancelled.

    Raises:
        NotFound: if there is none.
        Conflict: if it has ended.
    """
    connection = change.connection
    row = await find_pipeline(connection, identity)
    step = await current_step(connection, identity)
    words = f"Cancelled by {change.caller.name}{': ' + reason if reason else ''}."
    ended = await connection.execute(
        update(pipelines)
        .where(pipelines.c.id == identity, pipelines.c.state == "running")
        .values(state="cancelled", detail=words, ended_at=change.now)
    )
    if ended.rowcount != 1 or step is None:
        raise Conflict(f"The pipeline {identity} is {row.state} already.", code="pipeline_ended", param="id")
    mine = (pipeline_steps.c.pipeline == identity) & (pipeline_steps.c.state.in_(("running", "waiting")))
    await connection.execute(update(pipeline_steps).where(mine).values(state="cancelled", ended_at=change.now))
    await write_step(connection, step, {"detail": words})
    canary = await canary_of(connection, step.canary) if step.canary else None
    if canary is not None:
        await take_back(change, canary, "aborted", (f"Its pipeline was {words[0].lower()}{words[1:]}",), block=False)
    if step.build:
        await cancel_build(change, step.build)
    made = evaluations.c.id.in_(step.evaluations["made"])
    waiting = await connection.execute(select(evaluations.c.id).where(made, evaluations.c.state.in_(UNDER_WAY)))
    for one in waiting.scalars().all():
        await cancel_evaluation(change, one)
    await change.audit("pipeline.cancel", f"{row.model}:{row.label}", pipeline=identity, step=step.kind, reason=reason)


async def find_pipeline(connection: AsyncConnection, identity: str) -> Row[Any]:
    """The pipeline of this id.

    Raises:
        NotFound: if there is none.
    """
    row = (await connection.execute(select(pipelines).where(pipelines.c.id == identity))).one_or_none()
    if row is None:
        raise NotFound(
            f"There is no pipeline {identity!r}.", param="id", hint="penstock pipeline list shows all of them."
        )
    return row


async def current_step(connection: AsyncConnection, identity: str) -> Row[Any] | None:
    """The step that is under way; None: the pipeline has ended."""
    statement = select(pipeline_steps).where(pipeline_steps.c.pipeline == identity, pipeline_steps.c.state == "running")
    return (await connection.execute(statement)).one_or_none()


async def claim_turn(connection: AsyncConnection, step: Row[Any], values: dict[str, Any]) -> bool:
    """Write `values` to a step that is still as it was read; False if it is not: it was cancelled, or another control moved it."""
    moved = await connection.execute(
        update(pipeline_steps)
        .where(_is(step), pipeline_steps.c.state == "running", pipeline_steps.c.turn == step.turn)
        .values(turn=step.turn + 1, **values)
    )
    return moved.rowcount == 1


async def write_step(connection: AsyncConnection, step: Row[Any], values: dict[str, Any]) -> None:
    """Write `values` to a step that was claimed in this transaction."""
    await connection.execute(update(pipeline_steps).where(_is(step)).values(**values))


async def tell_pipelines(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Pipelines as the API tells them, each with its steps."""
    identities = [row.id for row in rows]
    found: dict[str, list[dict[str, Any]]] = {identity: [] for identity in identities}
    statement = select(pipeline_steps).where(pipeline_steps.c.pipeline.in_(identities))
    for step in await connection.execute(statement.order_by(pipeline_steps.c.pipeline, pipeline_steps.c.number)):
        found[step.pipeline].append(
            {
                "number": step.number,
                "kind": step.kind,
                "environment": step.environment,
                "state": step.state,
                "words": step.detail,
                "outcomes": step.outcomes,
                "evaluations": step.evaluations["asked"],
                "revision": step.revision,
                "canary": step.canary,
                "waits_since": step.waits_since,
                "started_at": step.started_at,
                "ended_at": step.ended_at,
            }
        )
    return [
        {
            "id": row.id,
            "model": row.model,
            "label": row.label,
            "digest": row.digest,
            "state": row.state,
            "words": row.detail,
            "plan": row.plan,
            "principal": row.principal,
            "created_at": row.created_at,
            "ended_at": row.ended_at,
            "steps": found[row.id],
        }
        for row in rows
    ]


def _is(step: Row[Any]) -> Any:
    return (pipeline_steps.c.pipeline == step.pipeline) & (pipeline_steps.c.number == step.number)


async def _of(connection: AsyncConnection, model: str, label: str) -> Sequence[Row[Any]]:
    statement = select(pipelines).where(pipelines.c.model == model, pipelines.c.label == label)
    return (await connection.execute(statement.order_by(pipelines.c.created_at.desc(), pipelines.c.id.desc()))).all()


async def _check_environments(connection: AsyncConnection, names: tuple[str, ...]) -> None:
    rows = await connection.execute(select(resources.c.name).where(resources.c.kind == "Environment"))
    there = set(rows.scalars())
    for name in names:
        if name not in there:
            raise BadRequest(f"There is no environment {name!r}.", param="environments")
    if len(set(names)) < len(names) or not names:
        raise BadRequest("Name each environment once, in the order in which it is to be passed.", param="environments")
