"""The life of an experiment: draft, running, paused, decided, archived; and what gateways are told of it.

What was registered is never edited: after the start only the state, the shares of a ramp and the verdict change.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.state import ActiveExperiment, load_state
from penstock.control.experiments.entry import (
    ResolvedArm,
    arm_of,
    contexts_of,
    first_contexts,
    first_of,
    first_spans,
    interleave_of,
    seed_of,
    shadow_of,
)
from penstock.control.experiments.gates import check_arms
from penstock.control.experiments.resolve import resolve
from penstock.control.experiments.store import ingested
from penstock.core.errors import Conflict, NotFound
from penstock.core.references import check_name
from penstock.core.snapshot import ExperimentEntry
from penstock.experiments.arms import check_parameters
from penstock.experiments.assignment import UNEXPOSED, respan, spans_by_weight
from penstock.experiments.design import TRANSITIONS, Design, parse_design
from penstock.experiments.population import audience_of, check_holdout, holdout_of, namespace_of, overlap
from penstock.experiments.ramp import Move
from penstock.experiments.ready import check_decisive, check_hypothesis
from penstock.store.schema_delivery import canaries
from penstock.store.schema_experiments import experiment_epochs, experiments


async def experiment_row(connection: AsyncConnection, name: str) -> Row[Any]:
    """The row of the experiment `name`.

    Raises:
        NotFound: if there is none.
    """
    row = (await connection.execute(select(experiments).where(experiments.c.name == name))).one_or_none()
    if row is None:
        raise NotFound(f"There is no experiment {name!r}.", param="name")
    return row


async def register(change: Change, name: str, design: Design, origin: str = "api") -> str:
    """Register `design` as the experiment `name`: "created", "updated" (a draft) or "unchanged".

    Raises:
        BadRequest: if the name is wrong, the holdout's is the arms' seed, or the primary metric cannot decide alone.
        Conflict: if the experiment has started and the spec is another.
    """
    check_name(name)
    check_holdout(design.holdout, seed_of(design, name, 1))
    check_decisive(design)
    plain = msgspec.to_builtins(design)
    row = (await change.connection.execute(select(experiments).where(experiments.c.name == name))).one_or_none()
    if row is None:
        await change.connection.execute(
            insert(experiments).values(
                name=name,
                spec=plain,
                route=design.route,
                state="draft",
                origin=origin,
                resolved={},
                ranges={},
                epoch=0,
                step=0,
                serving="",
                created_at=change.now,
                created_by=change.caller.name,
            )
        )
        await change.audit("experiment.create", name, spec=plain)
        return "created"
    if parse_design(row.spec) == design:
        return "unchanged"
    if row.state != "draft":
        raise Conflict(
            f"The experiment {name!r} is {row.state}: what was registered cannot be edited after the start.",
            hint="Stop it and register a new one under another name.",
            param="spec",
        )
    await _set(change, name, spec=plain, route=design.route)
    await change.audit("experiment.update", name, spec=plain)
    return "updated"


async def remove(change: Change, name: str) -> None:
    """Delete a draft; put a decided one away, since its record stays.

    Raises:
        NotFound: if there is no such experiment.
        Conflict: if it runs or is paused.
    """
    row = await experiment_row(change.connection, name)
    if row.state != "draft":
        if row.state != "archived":
            await archive(change, name)
        return
    await change.connection.execute(delete(experiments).where(experiments.c.name == name))
    await change.audit("experiment.delete", name)


def _next_state(row: Row[Any], action: str) -> str:
    allowed = TRANSITIONS[row.state]
    if action not in allowed:
        can = f"it can {', '.join(sorted(allowed))}" if allowed else "that is its end"
        raise Conflict(f"The experiment {row.name!r} is {row.state} and cannot {action}: {can}.", param="name")
    return allowed[action]


async def start(change: Change, name: str, *, environment: str, resolved: dict[str, ResolvedArm] | None = None) -> None:
    """Start a draft, or go on after a pause. `resolved`: what its arms are, if somebody knows better than their references tell.

    Raises:
        NotFound: if there is no such experiment.
        Conflict: if it cannot start, has no hypothesis, or another runs on its route.
        BadRequest: if the route or an arm's pool or build is not there.
    """
    row = await experiment_row(change.connection, name)
    state = _next_state(row, "start")
    design = parse_design(row.spec)
    if row.state == "draft":
        check_hypothesis(design, name)
        check_decisive(design)
    await _check_route_is_free(change.connection, name, design.route)
    await _check_namespace(change.connection, name, design)
    check_parameters(design.arms)
    values: dict[str, Any] = {"state": state, "serving": "", "expires_at": _expiry(design, change.now)}
    if row.state == "draft":
        if resolved is None:
            resolved = resolve(design, await load_state(change.connection, environment=environment))
            await check_arms(change, design, resolved, environment)
        shares = design.shares()
        values |= {
            "resolved": msgspec.to_builtins(resolved),
            "ranges": _by_arm(design, first_spans(design)),
            "epoch": 1,
            "step": 0,
            "planned": design.planned_units(),
            "started_at": change.now,
            "contexts": first_contexts(design) or None,
        }
        await _begin_epoch(change, name, 1, shares, first_contexts(design))
    await _set(change, name, **values)
    await change.audit("experiment.start", name)


async def pause(change: Change, name: str, reason: str) -> None:
    """All traffic to the control, until it is started again; nothing is counted meanwhile.

    Raises:
        NotFound: if there is no such experiment.
        Conflict: if it does not run.
    """
    row = await experiment_row(change.connection, name)
    state = _next_state(row, "pause")
    await _set(change, name, state=state, serving=parse_design(row.spec).incumbent, expires_at=None)
    await change.audit("experiment.pause", name, reason=reason)


async def stop(change: Change, name: str, reason: str) -> None:
    """End it without waiting for a verdict. A canary's traffic goes to the control, an A/B test's to what its route is for.

    Raises:
        NotFound: if there is no such experiment.
        Conflict: if it neither runs nor is paused, or is the canary of a deployment.
    """
    row = await _own_row(change, name, "stop")
    design = parse_design(row.spec)
    said = f"Stopped by {change.caller.name}{': ' + reason if reason else ''}."
    serving = design.incumbent if design.strategy == "canary" else ""
    await decide(change, name, serving=serving, reasons=(said,))


async def kill(change: Change, name: str, reason: str) -> None:
    """The kill switch: it has ended, and all of its traffic is on the control until it is archived.

    Raises:
        NotFound: if there is no such experiment.
        Conflict: if it neither runs nor is paused, or is the canary of a deployment.
    """
    row = await _own_row(change, name, "kill")
    said = f"Killed by {change.caller.name}{': ' + reason if reason else ''}."
    await decide(change, name, serving=parse_design(row.spec).incumbent, reasons=(said,))


async def _own_row(change: Change, name: str, action: str) -> Row[Any]:
    """The row of an experiment that may end by `action`, and not as a deployment's canary."""
    row = await experiment_row(change.connection, name)
    _next_state(row, action)
    mine = select(canaries.c.experiment).where(canaries.c.experiment == name, canaries.c.state == "running")
    if (await change.connection.execute(mine)).first() is not None:
        raise Conflict(
            f"{name} is the canary of a deployment, which ends with it.",
            code="canary_running",
            param="name",
            hint=f"penstock canary abort {name} takes it back, and penstock canary promote {name} gives it all of the traffic.",
        )
    return row


async def archive(change: Change, name: str) -> None:
    """Put it away: its route serves its own targets, and nothing told of its requests is counted any more.

    Raises:
        NotFound: if there is no such experiment.
        Conflict: if it still runs.
    """
    row = await experiment_row(change.connection, name)
    counted_to = await ingested(change.connection)
    await _set(change, name, state=_next_state(row, "archive"), serving="", expires_at=None, counted_to=counted_to)
    await change.audit("experiment.archive", name)


async def decide(change: Change, name: str, *, serving: str, reasons: tuple[str, ...]) -> None:
    """Write the decision; from the next Snapshot on `serving` has all traffic ("": the route's own targets)."""
    await _set(
        change,
        name,
        state="decided",
        serving=serving,
        expires_at=None,
        decided_at=change.now,
        decision={"reasons": list(reasons), "by": change.caller.name, "at": change.now, "serving": serving},
    )
    await change.audit("experiment.decide", name, reasons=list(reasons), serving=serving)


async def advance(change: Change, row: Row[Any], move: Move, heard: float) -> None:
    """Begin a new epoch with the shares of `move`; units of the treatment stay in it. `heard` as for `renew`."""
    design = parse_design(row.spec)
    weights = tuple(move.shares[arm.name] for arm in design.arms)
    if design.strategy == "bandit":
        spans = spans_by_weight(weights)
    else:
        old = tuple(tuple((low, high) for low, high in row.ranges[arm.name]) for arm in design.arms)
        spans = respan(old, weights)
    epoch = row.epoch + 1
    await _begin_epoch(change, row.name, epoch, move.shares, move.contexts)
    await _set(
        change,
        row.name,
        epoch=epoch,
        step=move.step,
        ranges=_by_arm(design, spans),
        contexts=move.contexts or None,
        expires_at=_expiry(design, heard),
    )
    await change.audit("experiment.step", row.name, shares=move.shares, reasons=list(move.reasons))


async def set_dose(change: Change, name: str, share: float) -> None:
    """From the next Snapshot on, a second arm answers this share of requests.

    The audit trail is not told: what somebody decided is the pace, which was registered; this follows from it again and again.
    """
    await _set(change, name, dose=share)


async def renew(change: Change, row: Row[Any], heard: float) -> None:
    """Let the shares live on until `lapse_s` after `heard`, up to when all that gateways recorded is known (Unix seconds)."""
    await _set(change, row.name, expires_at=_expiry(parse_design(row.spec), heard))


def _expiry(design: Design, now: float) -> float | None:
    return now + design.plan.lapse_s if design.strategy == "canary" else None


def _by_arm(design: Design, spans: tuple[tuple[tuple[float, float], ...], ...]) -> dict[str, list[list[float]]]:
    return {arm.name: [list(span) for span in mine] for arm, mine in zip(design.arms, spans, strict=True)}


async def _set(change: Change, name: str, **values: Any) -> None:
    await change.connection.execute(update(experiments).where(experiments.c.name == name).values(**values))


async def _begin_epoch(
    change: Change, name: str, epoch: int, shares: Mapping[str, float], contexts: Mapping[str, Mapping[str, float]]
) -> None:
    by_context = {context: dict(mine) for context, mine in contexts.items()} or None
    await change.connection.execute(
        insert(experiment_epochs).values(
            experiment=name, epoch=epoch, shares=dict(shares), contexts=by_context, started_at=change.now
        )
    )


async def _check_route_is_free(connection: AsyncConnection, name: str, route: str) -> None:
    other = (
        await connection.execute(
            select(experiments.c.name, experiments.c.state).where(
                experiments.c.route == route,
                experiments.c.state.in_(("running", "paused")),
                experiments.c.name != name,
            )
        )
    ).first()
    if other is not None:
        raise Conflict(
            f"The route {route!r} already has the experiment {other.name!r}, which is {other.state}: stop that first.",
            param="route",
        )


async def _check_namespace(connection: AsyncConnection, name: str, design: Design) -> None:
    """See that what says to exclude one another does, among the experiments that run or are paused."""
    if design.namespace is None:
        return
    rows = await connection.execute(
        select(experiments.c.name, experiments.c.spec).where(
            experiments.c.state.in_(("running", "paused")), experiments.c.name != name
        )
    )
    for row in rows:
        if overlap(design.namespace, parse_design(row.spec).namespace):
            low, high = design.namespace.range
            raise Conflict(
                f"The experiment {row.name!r} has a part of {low:g} to {high:g} in the namespace {design.namespace.name!r}.",
                hint="Take a range that is free, or stop that one first.",
                param="namespace.range",
            )


async def active_experiments(connection: AsyncConnection) -> tuple[ActiveExperiment, ...]:
    """What the Snapshot is to say of experiments: the one that runs on each route, or the newest that still holds its traffic."""
    rows = await connection.execute(
        select(experiments)
        .where(experiments.c.state.in_(("running", "paused", "decided")))
        .order_by(experiments.c.started_at, experiments.c.name)
    )
    by_route: dict[str, ActiveExperiment] = {}
    claimed: set[str] = set()  # by one that runs
    for row in rows:
        if row.state != "running" and (not row.serving or row.route in claimed):
            continue
        if row.state == "running":
            claimed.add(row.route)
        by_route[row.route] = _active(row)
    return tuple(by_route[route] for route in sorted(by_route))


def _active(row: Row[Any]) -> ActiveExperiment:
    design = parse_design(row.spec)
    resolved = msgspec.convert(row.resolved, dict[str, ResolvedArm])
    if row.state == "running":
        arms = tuple(arm_of(arm, resolved, row.ranges[arm.name], None) for arm in design.arms)
        incumbent, epoch = design.incumbent, row.epoch
    else:
        arms = tuple(arm_of(arm, resolved, (), 1.0) for arm in design.arms if arm.name == row.serving)
        incumbent, epoch = row.serving, UNEXPOSED
    # What is paused can go on at once: the builds of all arms stay, and the judge's.
    held = {row.serving, first_of(row.serving)}
    needed = [one for name, one in resolved.items() if row.state != "decided" or name in held]
    return ActiveExperiment(
        route=row.route,
        entry=ExperimentEntry(
            name=row.name,
            epoch=epoch,
            seed=seed_of(design, row.name, row.epoch),
            unit=design.unit,
            arms=arms,
            incumbent=incumbent,
            expires_at=row.expires_at if row.state == "running" else None,
            hash_version=design.hash_version,
            contexts=contexts_of(design, row.contexts) if row.state == "running" else None,
            shadow=shadow_of(design, resolved, row.dose) if row.state == "running" else None,
            interleave=interleave_of(design, row.dose) if row.state == "running" else None,
            audience=audience_of(design.targeting),
            namespace=namespace_of(design.namespace),
            holdout=holdout_of(design.holdout),
            sticky=design.sticky if row.state == "running" else "",
        ),
        builds=tuple(dict.fromkeys(one.build for one in needed if one.build is not None)),
        replicas=max(one.replicas for one in needed),
    )


async def experiment_entries(connection: AsyncConnection) -> dict[str, ExperimentEntry]:
    """By route: the entry that the Snapshot is to have."""
    return {one.route: one.entry for one in await active_experiments(connection)}
