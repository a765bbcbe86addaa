"""What the world shows of what a pipeline's step is about: read from the rows that versions, evaluations, revisions and canaries have anyway."""

from typing import Any

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.deploy.rows import live_revision, read_pointer, read_revision
from penstock.control.gates.ask import build_for, judge, newest_scan
from penstock.control.gates.evaluations import UNDER_WAY
from penstock.control.pipelines.builder import standing_of_build
from penstock.control.versions.rows import find_row
from penstock.core.errors import Conflict
from penstock.delivery.pipeline import EvaluationSeen, GateFound, Seen
from penstock.store.schema_delivery import canaries
from penstock.store.schema_experiments import experiments
from penstock.store.schema_gates import evaluations

DEFAULT_PRECISION = "int8"


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen, and what of it is kept for people: each gate with its figures (None: as it was)."""

    seen: Seen
    outcomes: list[dict[str, Any]] | None = None


async def observe(connection: AsyncConnection, pipeline: Row[Any], step: Row[Any], now: float) -> Look:
    """What is seen of `step`, which is under way.

    Raises:
        NotFound: if a suite or judge that a gate names is not registered.
        Damaged: if what is stored of the version is not what was committed.
    """
    version = await find_row(connection, pipeline.model, pipeline.label)
    if step.kind == "push" or version is None:
        pushed = version.digest if version is not None and version.state != "deleted" else ""
        return Look(seen=Seen(pushed=pushed, wanted=pipeline.digest))
    if step.kind == "scan":
        found = await newest_scan(connection, version)
        return Look(seen=Seen() if found is None else Seen(scan=found.passed, words=found.words))
    if step.kind == "build":
        return Look(seen=await _build(connection, version, pipeline.plan))
    if step.kind == "gate":
        return await _gates(connection, version, pipeline.plan, step, now)
    return Look(seen=await _deployment(connection, version, pipeline.plan, step))


async def _build(connection: AsyncConnection, version: Any, plan: dict[str, Any]) -> Seen:
    try:
        build = await build_for(connection, plan["environments"][-1], version, plan["precision"])
    except Conflict:
        state, words = await standing_of_build(connection, version, plan["precision"] or DEFAULT_PRECISION)
        return Seen(building=state, words=words)
    return Seen(build=build.folder)


async def _gates(connection: AsyncConnection, version: Any, plan: dict[str, Any], step: Row[Any], now: float) -> Look:
    asked = await _evaluations(connection, step.evaluations["asked"])
    if any(one.state in UNDER_WAY for one in asked):
        return Look(seen=Seen(gates=(), evaluations=asked))
    gated = await judge(connection, version, step.environment, plan["precision"], now)
    if gated is None:
        return Look(seen=Seen(), outcomes=[])
    outcomes = gated.judgement.outcomes
    found = tuple(GateFound(gate=o.gate, state=o.state, words=o.words, command=o.command) for o in outcomes)
    return Look(seen=Seen(gates=found, evaluations=asked), outcomes=msgspec.to_builtins(outcomes))


async def _evaluations(connection: AsyncConnection, identities: list[str]) -> tuple[EvaluationSeen, ...]:
    if not identities:
        return ()
    rows = await connection.execute(
        select(evaluations).where(evaluations.c.id.in_(identities)).order_by(evaluations.c.created_at, evaluations.c.id)
    )
    return tuple(
        EvaluationSeen(
            what=f"{row.suite or row.kind} of {row.model}:{row.label}",
            state=row.state,
            done=row.done,
            total=row.total,
            detail=row.detail,
        )
        for row in rows
    )


async def _deployment(connection: AsyncConnection, version: Any, plan: dict[str, Any], step: Row[Any]) -> Seen:
    if step.canary:
        state, words = await _canary(connection, step.canary)
        return Seen(canary=state, words=words)
    if step.revision:
        row = await read_revision(connection, step.revision)
        return Seen(revision=row.state, words=row.detail)
    live = await live_revision(connection, step.environment, version.model)
    if live is None:
        return Seen()
    pointer = await read_pointer(connection, step.environment, version.model, None)
    try:
        build = await build_for(connection, step.environment, version, plan["precision"])
        same = (live.digest, live.config.get("precision")) == (version.digest, build.precision)
    except Conflict:
        same = False
    return Seen(live=same and pointer.wanted == pointer.live, occupied=True)


async def _canary(connection: AsyncConnection, name: str) -> tuple[str, str]:
    """State and standing of a canary, in words."""
    statement = (
        select(canaries, experiments.c.step, experiments.c.state.label("running"))
        .join(experiments, experiments.c.name == canaries.c.experiment)
        .where(canaries.c.experiment == name)
    )
    row = (await connection.execute(statement)).one()
    if row.state != "running":
        return row.state, " ".join(row.words)
    steps = row.plan["steps"]
    share = f"{100 * steps[min(row.step, len(steps) - 1)]:.4g} % of the traffic, step {row.step + 1} of {len(steps)}"
    paused = ", and is paused" if row.running == "paused" else ""
    return "running", f"{name} has {share}{paused}. [penstock canary status {name}]"
