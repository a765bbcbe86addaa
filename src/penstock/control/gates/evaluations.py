"""Evaluations as rows: asked for, taken by an evaluator under a lease, told item by item, and finished."""

from typing import Any, Literal

import msgspec
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.versions.contents import check_evaluable
from penstock.core.digests import sha256_digest
from penstock.core.errors import Conflict, NotFound
from penstock.registry.comparison import ItemResult, summarise
from penstock.registry.suites import Family, parse_suite
from penstock.registry.tradeoff import SpeedRun, speed_figures
from penstock.registry.turns import TURN_S, Waiting, next_in_turn
from penstock.store.schema_gates import evaluation_items, evaluations, suites

Kind = Literal["scan", "smoke", "suite", "speed"]
LEASE_S = 20.0
UNDER_WAY = ("queued", "running")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured, and how: all that an evaluation is bound to but the engine.

    Attributes:
        digest, build: of the version, and of the build that is loaded.
        suite, suite_digest: "" for all that are no suites.
        settings: seed, prompts, digest of the judge; of speed also how many are asked at a time, and how long an answer may be.
        total: items; of speed runs.
    """

    kind: Kind
    model: str
    label: str
    digest: str
    precision: str
    build: str
    suite: str = ""
    suite_digest: str = ""
    settings: dict[str, Any] = {}
    total: int = 1

    @property
    def settings_hash(self) -> str:
        """What names the settings."""
        return sha256_digest(msgspec.json.encode(self.settings, order="sorted"))


class NewItem(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one item, as an evaluator tells it."""

    id: str
    number: int
    right: bool | None = None
    value: float | None = None
    answer: str = ""
    why: str = ""
    seconds: float = 0.0


def bound_to(measured: Measured, engine: str) -> Any:
    """The condition that a row measures this; with the engine `engine`, if that is known."""
    same = (
        (evaluations.c.kind == measured.kind)
        & (evaluations.c.digest == measured.digest)
        & (evaluations.c.build == measured.build)
        & (evaluations.c.suite_digest == measured.suite_digest)
        & (evaluations.c.settings_hash == measured.settings_hash)
    )
    if engine and measured.kind != "scan":
        same &= evaluations.c.engine_digest.in_((engine, ""))
    return same


async def ask(
    change: Change, measured: Measured, *, engine: str, again: bool = False, replay_of: str | None = None
) -> Row[Any]:
    """The evaluation that measures this: one that is done or under way, else a new one in the queue.

    Args:
        change: under way.
        measured: what.
        engine: digest of the engine as it is now; what was measured by another does not count.
        again: measure anew even if that was done.
        replay_of: id of the evaluation that is repeated.

    Raises:
        RateLimited: if the caller has as many as they may.
        Conflict: if the version brings code of its own and nobody who is trusted has signed it, so that no engine runs it.
    """
    if measured.kind != "scan":
        await check_evaluable(change.connection, measured.model, measured.label)
    wanted = UNDER_WAY if again else (*UNDER_WAY, "done")
    statement = select(evaluations).where(bound_to(measured, engine), evaluations.c.state.in_(wanted))
    if replay_of is not None:
        statement = statement.where(evaluations.c.replay_of == replay_of)
    row = (await change.connection.execute(statement.order_by(evaluations.c.created_at.desc()).limit(1))).one_or_none()
    if row is not None:
        return row
    if measured.kind != "scan":  # it is done when it is asked for
        await change.bounds.check_evaluation(change.connection, change.caller, UNDER_WAY)
    identity = change.new_id("eval")
    await change.connection.execute(
        insert(evaluations).values(
            id=identity,
            **msgspec.structs.asdict(measured),
            settings_hash=measured.settings_hash,
            engine_digest="",
            state="queued",
            detail="",
            passed=False,
            done=0,
            result={},
            holder="",
            lease_until=0.0,
            requested_by=change.caller.name,
            replay_of=replay_of,
            created_at=change.now,
        )
    )
    await change.audit(
        "evaluation.ask",
        f"{measured.model}:{measured.label}",
        evaluation=identity,
        kind=measured.kind,
        suite=measured.suite,
    )
    return await find_evaluation(change.connection, identity)


async def find_evaluation(connection: AsyncConnection, identity: str) -> Row[Any]:
    """The evaluation of this id.

    Raises:
        NotFound: if there is none.
    """
    row = (await connection.execute(select(evaluations).where(evaluations.c.id == identity))).one_or_none()
    if row is None:
        raise NotFound(f"There is no evaluation {identity!r}.", param="id")
    return row


async def claim(change: Change, holder: str, engine: str) -> Row[Any] | None:
    """The evaluation that `holder` is to work on: its own that was cut off, one whose evaluator is silent, else the next in turn; None: none.

    Those who wait take turns (`registry.turns`). What an engine of another digest had answered of it is answered anew.
    """
    free = (evaluations.c.holder == holder) | (evaluations.c.lease_until <= change.now)
    left = (evaluations.c.state == "running") & free
    eldest = select(evaluations.c.id).where(left).order_by(evaluations.c.created_at, evaluations.c.id).limit(1)
    for one in (
        (await change.connection.execute(eldest)).scalar_one_or_none(),
        await _next_in_turn(change.connection, change.now),
    ):
        if one is None:
            continue
        row = await find_evaluation(change.connection, one)
        values: dict[str, Any] = {"state": "running", "holder": holder, "lease_until": change.now + LEASE_S}
        if row.started_at is None:
            values["started_at"] = change.now
        if row.engine_digest != engine:
            await change.connection.execute(delete(evaluation_items).where(evaluation_items.c.evaluation == row.id))
            values |= {"engine_digest": engine, "done": 0}
        taken = await change.connection.execute(
            update(evaluations)
            .where(evaluations.c.id == row.id, evaluations.c.state == row.state, evaluations.c.holder == row.holder)
            .values(**values)
        )
        if taken.rowcount == 1:
            return await find_evaluation(change.connection, row.id)
    return None


async def _next_in_turn(connection: AsyncConnection, now: float) -> str | None:
    recent = evaluations.c.started_at > now - TURN_S
    started = await connection.execute(
        select(evaluations.c.requested_by, func.sum(evaluations.c.total))
        .where(recent)
        .group_by(evaluations.c.requested_by)
    )
    waiting = await connection.execute(
        select(evaluations.c.id, evaluations.c.requested_by)
        .where(evaluations.c.state == "queued")
        .order_by(evaluations.c.created_at, evaluations.c.id)
    )
    return next_in_turn(
        [Waiting(row.id, row.requested_by) for row in waiting], {row[0]: int(row[1]) for row in started}
    )


async def record(change: Change, identity: str, holder: str, items: tuple[NewItem, ...]) -> bool:
    """Keep what came of items, and the lease; False if the evaluation is not the holder's to go on with: it was cancelled, or somebody else has it.

    An item that is told again stays as it was first told.
    """
    connection = change.connection
    kept = await connection.execute(
        update(evaluations)
        .where(evaluations.c.id == identity, evaluations.c.state == "running", evaluations.c.holder == holder)
        .values(lease_until=change.now + LEASE_S)
    )
    if kept.rowcount != 1:
        return False
    mine = evaluation_items.c.evaluation == identity
    if items:
        names = [item.id for item in items]
        there = await connection.execute(
            select(evaluation_items.c.item).where(mine, evaluation_items.c.item.in_(names))
        )
        known = set(there.scalars())
        new = [_row(identity, item) for item in items if item.id not in known]
        if new:
            await connection.execute(insert(evaluation_items), new)
    count = (await connection.execute(select(func.count()).select_from(evaluation_items).where(mine))).scalar_one()
    await connection.execute(update(evaluations).where(evaluations.c.id == identity).values(done=count))
    return True


def _row(evaluation: str, item: NewItem) -> dict[str, Any]:
    told = msgspec.structs.asdict(item)
    name, correct = told.pop("id"), told.pop("right")
    return {**told, "evaluation": evaluation, "item": name, "correct": correct}


async def finish(change: Change, identity: str, holder: str, error: str) -> None:
    """Close the evaluation with what its items say; with `error` it has failed.

    Raises:
        Conflict: if it is not the holder's, or items are missing.
    """
    row = await find_evaluation(change.connection, identity)
    if row.state != "running" or row.holder != holder:
        raise Conflict(f"The evaluation {identity} is {row.state}, and not {holder}'s to finish.")
    items = await load_items(change.connection, row)
    least = max(row.total, 1)  # of what another tool asks it is not known before
    if not error and len(items) < least:
        raise Conflict(f"The evaluation {identity} lacks {least - len(items)} of {least} items.")
    failed = [one for one in items if one.right is False]
    result: dict[str, Any] = {}
    if not error and row.kind == "suite":
        result = {"figures": summarise(items)}
    elif not error and row.kind == "speed":
        result = {"figures": speed_figures(await load_runs(change.connection, identity))}
    if row.replay_of is not None and not error:
        result["replay"] = await _replayed(change.connection, row)
    words = error
    if not error and row.kind == "smoke":
        words = (
            f"It loads, and answers {len(items)} of {len(items)} prompts."
            if not failed
            else "It loads, and says nothing."
        )
    await change.connection.execute(
        update(evaluations)
        .where(evaluations.c.id == identity)
        .values(
            # A version that does not load has failed its smoke test: that is a result. A suite that cannot be run is none.
            state="done" if not error or row.kind == "smoke" else "failed",
            passed=not error and not failed,
            detail=words,
            total=max(row.total, len(items)),
            result=result,
            finished_at=change.now,
        )
    )
    await change.audit("evaluation.finish", f"{row.model}:{row.label}", evaluation=identity, error=error)


async def cancel(change: Change, identity: str) -> None:
    """End an evaluation that waits or runs.

    Raises:
        Conflict: if it has ended.
    """
    row = await find_evaluation(change.connection, identity)
    if row.state not in UNDER_WAY:
        raise Conflict(f"The evaluation {identity} is {row.state} already.")
    await change.connection.execute(
        update(evaluations)
        .where(evaluations.c.id == identity)
        .values(state="cancelled", detail=f"Cancelled by {change.caller.name}.", finished_at=change.now)
    )
    await change.audit("evaluation.cancel", f"{row.model}:{row.label}", evaluation=identity)


async def load_items(connection: AsyncConnection, row: Row[Any]) -> tuple[ItemResult, ...]:
    """What came of an evaluation's items, in the suite's order."""
    families: dict[str, tuple[Family, dict[str, str]]] = {}
    by_task = False
    if row.kind == "suite":
        lines = select(suites.c.lines).where(suites.c.name == row.suite, suites.c.digest == row.suite_digest)
        suite = parse_suite((await connection.execute(lines)).scalar_one())
        families = {item.id: (item.family, item.slices) for item in suite.items}
        by_task = suite.harness is not None
    found = await connection.execute(
        select(evaluation_items).where(evaluation_items.c.evaluation == row.id).order_by(evaluation_items.c.number)
    )
    results = []
    for one in found:
        unknown = {"task": one.item.rpartition("/")[0]} if by_task else {}
        family, slices = families.get(one.item, ("right", unknown))
        results.append(ItemResult(id=one.item, family=family, right=one.correct, value=one.value, slices=slices))
    return tuple(results)


async def load_runs(connection: AsyncConnection, identity: str) -> tuple[SpeedRun, ...]:
    """The runs of a measurement of speed."""
    mine = evaluation_items.c.evaluation == identity
    found = await connection.execute(select(evaluation_items).where(mine).order_by(evaluation_items.c.number))
    return tuple(msgspec.json.decode(one.answer, type=SpeedRun) for one in found)


async def _replayed(connection: AsyncConnection, row: Row[Any]) -> dict[str, Any]:
    """Which items were answered otherwise than in the evaluation that this one repeats."""
    told: list[dict[str, tuple[str, bool | None]]] = []
    for identity in (row.replay_of, row.id):
        found = await connection.execute(select(evaluation_items).where(evaluation_items.c.evaluation == identity))
        told.append({one.item: (one.answer, one.correct) for one in found})
    before, now = told
    other = sorted(item for item in now if before.get(item) != now[item])
    return {"of": row.replay_of, "items": len(now), "same": len(now) - len(other), "different": other[:100]}
