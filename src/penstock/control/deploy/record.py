"""The deployment record: promote, roll back, go live, fail; each a change of one transaction, its pointer moved by compare-and-swap."""

from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.blocks import standing_blocks
from penstock.control.deploy.canary_rows import running_canary, take_back
from penstock.control.deploy.rows import (
    check_build,
    insert_revision,
    labels_elsewhere,
    move_pointer,
    read_pointer,
    read_revision,
    serves_here,
    whole_of,
)
from penstock.control.deploy.state import revision_of
from penstock.control.gates.passing import keep_judgement, pass_gates, reason_of
from penstock.control.versions.find import find_version
from penstock.control.watch.drift_store import begin_group, end_group
from penstock.core.errors import Conflict, NotFound
from penstock.core.references import Reference
from penstock.delivery.blocks import blocked_digests, check_unblocked
from penstock.delivery.revisions import Past, Whole, choose_rollback
from penstock.registry.states import check_deployable
from penstock.store.schema import deployments, revisions


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """What a promotion asks for."""

    reference: Reference
    environment: str
    precision: str | None = None  # none: as now, else int8
    replicas: int | None = None  # none: as now, else 1
    reason: str = ""
    generation: int | None = None  # of the deployment, as the caller saw it; none: whatever it is
    override: str = ""  # why an administrator lets it in though gates are not passed


async def promote(change: Change, wish: Promotion, *, own_environment: str) -> Any:
    """The revision by which `wish.environment` is to run the version; the one that is wanted already if nothing differs.

    Raises:
        NotFound: if there is no such version or environment.
        Conflict: if the version may not be deployed, is blocked there, has no build, does not pass the environment's gates, a canary runs, or the
            deployment is of another generation than was seen.
        Forbidden: if somebody who may not overrides the gates.
    """
    connection = change.connection
    serves = await serves_here(connection, wish.environment, own_environment)
    version = await find_version(connection, wish.reference)
    reference = f"{version.model}:{version.label}"
    check_deployable(reference, version.state)
    check_unblocked(
        await standing_blocks(connection, wish.environment, version.model),
        model=version.model,
        label=version.label,
        digest=version.digest,
        environment=wish.environment,
    )
    canary = await running_canary(connection, wish.environment, version.model)
    if canary is not None:
        raise Conflict(
            f"The canary {canary.experiment} runs in {wish.environment}: it ends before anything is promoted.",
            code="canary_running",
            param="model",
            hint=f"penstock canary promote {version.model} gives it all of the traffic, penstock canary abort {version.model} takes it back.",
        )
    pointer = await read_pointer(connection, wish.environment, version.model, wish.generation)
    now = await read_revision(connection, pointer.wanted) if pointer is not None else None
    config = dict(now.config) if now is not None and now.state != "failed" else {}
    whole = Whole(
        label=version.label,
        digest=version.digest,
        precision=wish.precision or config.get("precision", "int8"),
        replicas=wish.replicas or config.get("replicas", 1),
    )
    if now is not None and now.state in {"pending", "live"} and whole_of(now) == whole:
        return now
    if serves:
        await check_build(connection, version.model, whole, reference)
    gated = await pass_gates(change, version, wish.environment, whole.precision, wish.override)
    reason = reason_of(wish.reason, gated, wish.override)
    row = await _record(
        change, wish.environment, version.model, whole, "promote", reason, pointer, source=None, live=not serves
    )
    await keep_judgement(change, row.id, gated, wish.override)
    return row


async def roll_back(
    change: Change,
    model: str,
    environment: str,
    *,
    own_environment: str,
    to: str | None = None,
    reason: str = "",
    generation: int | None = None,
    leaves_live: bool = False,
) -> Any:
    """The revision that copies an earlier whole state (`choose_rollback`). While a canary runs, what is undone is the canary.

    With `to` or `leaves_live` that comes first, and what is live is gone back from all the same.

    Raises:
        NotFound: if nothing is deployed there, or there is no earlier state.
        Conflict: if that state is wanted already, or the deployment is of another generation than was seen.
    """
    connection = change.connection
    serves = await serves_here(connection, environment, own_environment)
    pointer = await read_pointer(connection, environment, model, generation)
    if pointer is None:
        raise NotFound(f"Nothing of {model} is deployed in {environment}.")
    canary = await running_canary(connection, environment, model)
    target = None
    if canary is None or to is not None or leaves_live:
        target = await _earlier(connection, pointer, to, leaves_live=leaves_live)
    if canary is not None:
        said = f"Rolled back by {change.caller.name}{': ' + reason if reason else ''}."
        await take_back(change, canary, "aborted", (said,), block=False)
    if target is None:
        return await read_revision(connection, pointer.live)
    return await _record(
        change, environment, model, target.whole, "rollback", reason, pointer, source=target.id, live=not serves
    )


async def _earlier(connection: AsyncConnection, pointer: Any, to: str | None, *, leaves_live: bool) -> Past:
    environment, model = pointer.environment, pointer.model
    rows = await connection.execute(
        select(revisions).where(revisions.c.environment == environment, revisions.c.model == model)
    )
    history = [
        Past(id=row.id, number=row.number, state=row.state, whole=whole_of(row), source=row.source) for row in rows
    ]
    standing = await standing_blocks(connection, environment, model)
    blocked = blocked_digests(standing, model=model, environment=environment)
    return choose_rollback(history, wanted=pointer.wanted, to=to, blocked=blocked, leaves_live=leaves_live)


async def go_live(change: Change, identity: str, *, own_environment: str) -> None:
    """Let the revision `identity` be served; nothing happens if it is not wanted any more. `own_environment` is the one that gateways serve."""
    connection = change.connection
    row = await read_revision(connection, identity)
    pointer = await read_pointer(connection, row.environment, row.model, None)
    if pointer is None or pointer.wanted != identity or row.state != "pending":
        return
    values: dict[str, Any] = {"live": identity, "generation": pointer.generation + 1}
    replaced = None
    if pointer.live is not None:
        before = await read_revision(connection, pointer.live)
        replaced = before.label if before.label != row.label else None
        await connection.execute(update(revisions).where(revisions.c.id == before.id).values(state="superseded"))
        if revision_of(before).build != revision_of(row).build:
            values["warm"] = before.id
    await move_pointer(connection, pointer, values)
    await connection.execute(
        update(revisions).where(revisions.c.id == identity).values(state="live", live_at=change.now)
    )
    if pointer.live is None or replaced is not None:  # the same version with more replicas is as it was
        await _watch(change, row, replaced, own_environment)
    await change.audit("deployment.live", f"{row.environment}/{row.model}", revision=identity, label=row.label)


async def _watch(change: Change, row: Any, replaced: str | None, own_environment: str) -> None:
    """Begin to watch the version for drift, and end it for the one of the label `replaced`.

    A version has one group for all environments. What is live in another one too goes on there, so only the environment that gateways
    serve may begin its group anew, and it ends where it is live nowhere.
    """
    connection = change.connection
    elsewhere = await labels_elsewhere(connection, row.environment, row.model, own_environment)
    before = f"{row.model}:{replaced}" if replaced is not None else None
    if row.environment == own_environment or row.label not in elsewhere:
        await begin_group(
            connection,
            f"{row.model}:{row.label}",
            replaced=before,
            returns=row.action == "rollback",
            now=change.now,
        )
    if before is not None and replaced not in elsewhere:
        await end_group(connection, before, change.now)


async def fail(change: Change, identity: str, detail: str) -> None:
    """Give the revision `identity` up: what was live before stays wanted."""
    connection = change.connection
    row = await read_revision(connection, identity)
    pointer = await read_pointer(connection, row.environment, row.model, None)
    if pointer is None or row.state != "pending":
        return
    if pointer.wanted == identity and pointer.live is not None:
        await move_pointer(connection, pointer, {"wanted": pointer.live, "generation": pointer.generation + 1})
    await connection.execute(update(revisions).where(revisions.c.id == identity).values(state="failed", detail=detail))
    await change.audit("deployment.fail", f"{row.environment}/{row.model}", revision=identity, detail=detail)


async def _record(
    change: Change,
    environment: str,
    model: str,
    whole: Whole,
    action: str,
    reason: str,
    pointer: Any,
    *,
    source: str | None,
    live: bool,
) -> Any:
    connection = change.connection
    identity, number = await insert_revision(
        change,
        environment,
        model,
        whole,
        action,
        reason,
        previous=pointer.wanted if pointer is not None else None,
        source=source,
        live=live,
    )
    if pointer is None:
        await connection.execute(
            insert(deployments).values(
                environment=environment, model=model, generation=1, wanted=identity, live=identity if live else None
            )
        )
    else:
        values: dict[str, Any] = {"wanted": identity, "generation": pointer.generation + 1}
        replaced = {pointer.wanted} - {pointer.live}  # one that was still warming up
        if live:
            values["live"] = identity
            replaced.add(pointer.live)
        await move_pointer(connection, pointer, values)
        await connection.execute(
            update(revisions)
            .where(revisions.c.id.in_(replaced), revisions.c.state.in_(("pending", "live")))
            .values(state="superseded" if live else "failed", detail="" if live else f"replaced by revision {number}")
        )
    await change.audit(
        f"deployment.{action}",
        f"{environment}/{model}",
        revision=identity,
        number=number,
        label=whole.label,
        digest=whole.digest,
        reason=reason,
    )
    return await read_revision(connection, identity)
