"""Canaries of deployments: begun, promoted, taken back. Each is a revision that is tried out, and the experiment that splits its traffic."""

from typing import Any

import msgspec
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.blocks import standing_blocks
from penstock.control.deploy.canary_rows import canary_of, end_row, running_canary, take_back
from penstock.control.deploy.record import go_live
from penstock.control.deploy.rows import (
    check_build,
    insert_revision,
    move_pointer,
    read_pointer,
    read_revision,
    serves_here,
)
from penstock.control.deploy.state import revision_of
from penstock.control.experiments import life
from penstock.control.experiments.entry import ResolvedArm
from penstock.control.gates.passing import keep_judgement, pass_again, pass_gates, reason_of
from penstock.control.specs.canary import CanarySpec
from penstock.control.specs.resources import EnvironmentSpec, RouteSpec
from penstock.control.versions.find import find_version
from penstock.core.digests import sha256_digest, short
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.core.references import Reference
from penstock.delivery.blocks import check_unblocked
from penstock.delivery.plan import START_S
from penstock.delivery.pools import BuildKey
from penstock.delivery.revisions import Whole
from penstock.experiments.canary import CANARY, INCUMBENT, CanaryPlan, canary_design
from penstock.experiments.ramp import Move
from penstock.registry.states import check_deployable
from penstock.store.schema import replicas, resources, revisions
from penstock.store.schema_delivery import canaries
from penstock.store.schema_experiments import experiments

_LONGEST = 96  # characters of a name


class CanaryWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a canary is asked for. `plan` holds the fields that differ from the environment's."""

    reference: Reference
    environment: str
    plan: dict[str, Any] = {}
    precision: str | None = None  # none: as the incumbent's
    replicas: int | None = None  # none: as the incumbent's
    reason: str = ""
    override: str = ""  # why an administrator lets it in though gates are not passed


async def begin_canary(change: Change, wish: CanaryWish, *, own_environment: str) -> str:
    """Try out a version against what is live; the name of its experiment.

    Raises:
        NotFound: if there is no such version or environment.
        Conflict: if the version may not be deployed, is blocked there, does not pass its gates, has no build or is live; if nothing is live to compare it with; if a
            promotion or another canary is under way; if gateways do not serve the environment, or the model's route leads elsewhere.
        BadRequest: if the plan is none; `param` is its path.
    """
    connection = change.connection
    await serves_here(connection, wish.environment, own_environment)
    if wish.environment != own_environment:
        raise Conflict(
            f"Gateways serve {own_environment}: a canary in {wish.environment} would get no traffic.",
            code="canary_impossible",
            param="environment",
        )
    version = await _deployable(connection, wish.reference, wish.environment)
    reference = f"{version.model}:{version.label}"
    incumbent = await _incumbent(change, wish.environment, version.model, reference)
    whole = Whole(
        label=version.label,
        digest=version.digest,
        precision=wish.precision or incumbent.precision,
        replicas=wish.replicas or incumbent.replicas,
    )
    await check_build(connection, version.model, whole, reference)
    await _check_route(change, version.model, wish.environment)
    gated = await pass_gates(change, version, wish.environment, whole.precision, wish.override)
    plan = await _plan(change, wish)
    pointer = await read_pointer(connection, wish.environment, version.model, None)
    reason = reason_of(wish.reason, gated, wish.override)
    identity, number = await insert_revision(
        change, wish.environment, version.model, whole, "canary", reason, previous=pointer.wanted
    )
    await keep_judgement(change, identity, gated, wish.override)
    name = canary_name(version.model, number)
    design = canary_design(plan, route=version.model, incumbent=f"{version.model}:{incumbent.label}", canary=reference)
    await life.register(change, name, design, "system")
    arms = {
        INCUMBENT: ResolvedArm(pool=incumbent.build.pool, build=incumbent.build),
        CANARY: _arm(BuildKey(model=version.model, label=version.label, precision=whole.precision), whole.replicas),
    }
    await life.start(change, name, environment=own_environment, resolved=arms)
    await connection.execute(
        insert(canaries).values(
            experiment=name,
            environment=wish.environment,
            model=version.model,
            revision=identity,
            incumbent=incumbent.id,
            state="running",
            plan=msgspec.to_builtins(plan),
            words=[],
        )
    )
    await change.audit(
        "canary.start", f"{wish.environment}/{version.model}", experiment=name, label=version.label, reason=wish.reason
    )
    return name


def canary_name(model: str, number: int) -> str:
    """What the canary of the revision `number` is called; a long model's name is cut, and told from its like by a digest."""
    name = f"canary-{model}-{number}"
    if len(name) <= _LONGEST:
        return name
    end = f"-{short(sha256_digest(model.encode()))}-{number}"
    return f"canary-{model}"[: _LONGEST - len(end)] + end


async def conclude(change: Change, canary: Row[Any], move: Move, evidence: tuple[str, ...] = ()) -> None:
    """What follows for the deployment when the canary's experiment is decided by `move`: one change for all of it.

    A canary that won and may not be deployed any more is taken back.
    """
    if move.serving == CANARY:
        try:
            await _check_deployable(change, canary, "")
        except (Conflict, NotFound) as refusal:
            said = f"It may not be deployed any more: {refusal.message}"
            await take_back(change, canary, "rolled_back", (said, *move.reasons), block=False)
        else:
            await promote_canary(change, canary, move.reasons)
        return
    first, *rest = move.reasons or ("Its experiment ended.",)
    await take_back(change, canary, "rolled_back", (first, *evidence, *rest), block=move.harm)


async def promote_canary(change: Change, canary: Row[Any], words: tuple[str, ...], override: str = "") -> None:
    """Give the canary all of the traffic: its revision is live, and the incumbent's replicas stay warm.

    Its environment's gates are asked once more: who signed may have been revoked since it began, and who approved may have thought better of it.

    Args:
        change: under way.
        canary: its row.
        words: why.
        override: why an administrator lets it in though gates are not passed; "": nobody does.

    Raises:
        NotFound: if the version is gone.
        Forbidden: if somebody else than an administrator overrides.
        Conflict: if it may not be deployed any more, is blocked, does not pass its gates any more, no replica of it is ready, or the deployment has changed meanwhile.
    """
    connection = change.connection
    await _check_deployable(change, canary, override)
    revision = revision_of(await read_revision(connection, canary.revision))
    ready = select(replicas.c.id).where(replicas.c.pool == revision.build.pool).limit(1)
    if (await connection.execute(ready)).first() is None:
        raise Conflict(f"No replica of {revision.model}:{revision.label} is ready.", code="canary_impossible")
    pointer = await read_pointer(connection, canary.environment, canary.model, None)
    if pointer is None or pointer.live != canary.incumbent or pointer.wanted != canary.incumbent:
        raise Conflict(f"The deployment of {canary.model} in {canary.environment} has changed since the canary began.")
    await move_pointer(connection, pointer, {"wanted": revision.id, "generation": pointer.generation + 1})
    # Canaries are begun in the environment that gateways serve alone.
    await go_live(change, revision.id, own_environment=canary.environment)
    await connection.execute(update(revisions).where(revisions.c.id == revision.id).values(detail=" ".join(words)))
    await life.decide(change, canary.experiment, serving="", reasons=words)
    await end_row(change, canary, "promoted", words)
    await change.audit(
        "canary.promote",
        f"{canary.environment}/{canary.model}",
        revision=revision.id,
        label=revision.label,
        reasons=list(words),
    )


async def abort_canary(change: Change, canary: Row[Any], reason: str, *, block: bool = False) -> None:
    """The kill switch: all traffic on the incumbent, whatever the evidence."""
    said = f"Aborted by {change.caller.name}{': ' + reason if reason else ''}."
    await take_back(change, canary, "aborted", (said,), block=block)


async def give_up_unready(change: Change, experiment: str) -> bool:
    """Take the canary back whose replicas were not ready in time; whether it was one."""
    canary = await canary_of(change.connection, experiment)
    if canary is None:
        return False
    revision = revision_of(await read_revision(change.connection, canary.revision))
    ready = select(replicas.c.id).where(replicas.c.pool == revision.build.pool).limit(1)
    started = select(experiments.c.started_at).where(experiments.c.name == experiment)
    since = (await change.connection.execute(started)).scalar_one()
    if change.now - since < START_S or (await change.connection.execute(ready)).first() is not None:
        return False
    words = (f"Its replicas were not ready within {START_S:.0f} s.",)
    await take_back(change, canary, "aborted", words, block=False)
    return True


async def find_canary(change_or_connection: Any, name: str, *, running: bool = False) -> Row[Any]:
    """The canary called `name`, or the newest of the model `name`.

    Raises:
        NotFound: if there is none, or, with `running`, none that has not ended.
    """
    statement = (
        select(canaries)
        .join(revisions, revisions.c.id == canaries.c.revision)
        .where((canaries.c.experiment == name) | (canaries.c.model == name))
        .order_by(revisions.c.created_at.desc(), revisions.c.number.desc())
        .limit(1)
    )
    if running:
        statement = statement.where(canaries.c.state == "running")
    row: Row[Any] | None = (await change_or_connection.execute(statement)).one_or_none()
    if row is None:
        which = "No canary runs of" if running else "There is no canary of"
        raise NotFound(f"{which} {name}.", param="name", hint="penstock canary list shows all of them.")
    return row


async def _deployable(connection: AsyncConnection, reference: Reference, environment: str) -> Any:
    """The row of a version that may be deployed in `environment`.

    Raises:
        NotFound: if there is no such version.
        Conflict: if it may not be deployed, or is blocked there.
    """
    version = await find_version(connection, reference)
    check_deployable(f"{version.model}:{version.label}", version.state)
    check_unblocked(
        await standing_blocks(connection, environment, version.model),
        model=version.model,
        label=version.label,
        digest=version.digest,
        environment=environment,
    )
    return version


async def _check_deployable(change: Change, canary: Row[Any], override: str) -> None:
    """See that the canary's version may still be deployed; raises what `_deployable` and `pass_again` do."""
    revision = await read_revision(change.connection, canary.revision)
    reference = Reference(name=canary.model, label=revision.label)
    version = await _deployable(change.connection, reference, canary.environment)
    await pass_again(change, version, revision, revision_of(revision).precision, override)


def _arm(build: BuildKey, replicas: int) -> ResolvedArm:
    return ResolvedArm(pool=build.pool, build=build, replicas=replicas)


async def _incumbent(change: Change, environment: str, model: str, reference: str) -> Any:
    connection = change.connection
    other = await running_canary(connection, environment, model)
    if other is not None:
        raise Conflict(
            f"The canary {other.experiment} runs already in {environment}.",
            code="canary_running",
            param="model",
            hint=f"penstock canary abort {model} ends it.",
        )
    pointer = await read_pointer(connection, environment, model, None)
    if pointer is None or pointer.live is None:
        raise Conflict(
            f"Nothing of {model} is live in {environment} to compare a canary with: promote {reference} instead.",
            code="canary_impossible",
            param="environment",
        )
    if pointer.wanted != pointer.live:
        raise Conflict(
            f"A promotion of {model} is under way in {environment}: wait for it.",
            code="promotion_under_way",
            param="environment",
        )
    live = revision_of(await read_revision(connection, pointer.live))
    if f"{model}:{live.label}" == reference:
        raise Conflict(f"{reference} is live in {environment} already.", param="label")
    return live


async def _check_route(change: Change, model: str, environment: str) -> None:
    """See that the model's route leads to what `environment` serves of it: only there a canary can take a share."""
    statement = select(resources.c.spec).where(resources.c.kind == "Route", resources.c.name == model)
    raw = (await change.connection.execute(statement)).scalar_one_or_none()
    if raw is None:
        return
    for target in RouteSpec.model_validate(raw).to:
        leads = target.model == model and target.env in (None, environment)
        if not leads and target.pool is not None:
            pool = select(resources.c.spec).where(resources.c.kind == "Pool", resources.c.name == target.pool)
            spec = (await change.connection.execute(pool)).scalar_one_or_none()
            leads = spec is not None and spec.get("build") == f"{model}@{environment}"
        if not leads:
            raise Conflict(
                f"The route {model} is declared and leads elsewhere than to what {environment} serves of {model}.",
                code="canary_impossible",
                param="model",
                hint=f"Let it lead to {{model: {model}}}, or run an experiment with strategy canary on it.",
            )


async def _plan(change: Change, wish: CanaryWish) -> CanaryPlan:
    statement = select(resources.c.spec).where(resources.c.kind == "Environment", resources.c.name == wish.environment)
    raw = (await change.connection.execute(statement)).scalar_one_or_none()
    if raw is None:
        raise NotFound(f"There is no environment {wish.environment!r}.", param="environment")
    whole = {**EnvironmentSpec.model_validate(raw).canary.model_dump(), **wish.plan}
    try:
        return msgspec.convert(CanarySpec.model_validate(whole).model_dump(), CanaryPlan)
    except ValueError as error:
        raise BadRequest(f"The plan cannot be used: {error}.", param="plan") from None
