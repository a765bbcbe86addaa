"""Canaries as rows, and how one ends without the version: the part that the deployment record itself needs."""

from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.blocks import block_version
from penstock.control.experiments.life import decide
from penstock.store.schema import revisions
from penstock.store.schema_delivery import canaries


async def running_canary(connection: AsyncConnection, environment: str, model: str) -> Row[Any] | None:
    """The canary that runs (or is paused) for `model` in `environment`."""
    return (
        await connection.execute(
            select(canaries).where(
                canaries.c.environment == environment, canaries.c.model == model, canaries.c.state == "running"
            )
        )
    ).one_or_none()


async def canary_of(connection: AsyncConnection, experiment: str) -> Row[Any] | None:
    """The canary that `experiment` is, if it is one that has not ended."""
    return (
        await connection.execute(
            select(canaries).where(canaries.c.experiment == experiment, canaries.c.state == "running")
        )
    ).one_or_none()


async def take_back(change: Change, canary: Row[Any], state: str, words: tuple[str, ...], *, block: bool) -> None:
    """End the canary with all traffic on the incumbent, in this one change.

    Args:
        change: the change.
        canary: its row.
        state: rolled_back or aborted.
        words: why, for the history.
        block: keep the version out of the environment until somebody clears it.
    """
    revision = (await change.connection.execute(select(revisions).where(revisions.c.id == canary.revision))).one()
    await decide(change, canary.experiment, serving="", reasons=words)
    await change.connection.execute(
        update(revisions).where(revisions.c.id == canary.revision).values(state="failed", detail=" ".join(words))
    )
    await end_row(change, canary, state, words)
    if block:
        await block_version(
            change,
            environment=canary.environment,
            model=canary.model,
            label=revision.label,
            digest=revision.digest,
            reason=words[0],
        )
    await change.audit(
        f"canary.{'rollback' if state == 'rolled_back' else 'abort'}",
        f"{canary.environment}/{canary.model}",
        revision=canary.revision,
        label=revision.label,
        reasons=list(words),
    )


async def take_back_blocked(change: Change, *, environment: str, model: str, digest: str, reason: str) -> None:
    """End the canary of the version that was blocked in `environment` by the caller, if one runs."""
    canary = await running_canary(change.connection, environment, model)
    if canary is None:
        return
    statement = select(revisions.c.digest).where(revisions.c.id == canary.revision)
    if (await change.connection.execute(statement)).scalar_one() == digest:
        said = f"Its version was blocked by {change.caller.name}: {reason}"
        await take_back(change, canary, "aborted", (said,), block=False)


async def end_row(change: Change, canary: Row[Any], state: str, words: tuple[str, ...]) -> None:
    """Write down how it ended."""
    await change.connection.execute(
        update(canaries)
        .where(canaries.c.experiment == canary.experiment)
        .values(state=state, words=list(words), ended_at=change.now, ended_by=change.caller.name)
    )
