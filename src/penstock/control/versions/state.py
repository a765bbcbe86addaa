"""What may become of a version once it is committed: archived, cleared, deleted. Its row stays for ever, and so does its label."""

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.core.errors import Conflict
from penstock.registry.states import VersionState, move
from penstock.store.schema import resources, revisions, versions
from penstock.store.schema_experiments import experiments
from penstock.store.schema_versions import aliases


async def change_state(change: Change, version: Any, to: VersionState, *, reason: str = "") -> None:
    """Move `version` (a row) to the state `to`.

    A version that is deleted gives its bytes up with the next sweep; label, digest, manifest, metadata and card stay.

    Raises:
        Conflict: if that move is not allowed, or something needs the version.
    """
    reference = f"{version.model}:{version.label}"
    move(reference, version.state, to)
    if to != "committed":
        users = await _users(change.connection, version, deleted=to == "deleted")
        if users:
            raise Conflict(
                f"{reference} is still needed: {'; '.join(users[:3])}.",
                code="version_used",
                hint="Promote another version, or move the alias, first." if to == "archived" else None,
            )
    mine = (
        (versions.c.model == version.model) & (versions.c.label == version.label) & (versions.c.state == version.state)
    )
    moved = await change.connection.execute(update(versions).where(mine).values(state=to))
    if moved.rowcount != 1:
        raise Conflict(f"{reference} has changed meanwhile.", code="generation_conflict")
    await change.audit(f"version.{_VERBS[to]}", reference, digest=version.digest, reason=reason)


_VERBS: dict[VersionState, str] = {
    "archived": "archive",
    "committed": "restore",
    "blocked": "block",
    "deleted": "delete",
}


async def _users(connection: AsyncConnection, version: Any, *, deleted: bool) -> list[str]:
    reference = f"{version.model}:{version.label}"
    states = ("pending", "live", "superseded") if deleted else ("pending", "live")
    rows = await connection.execute(
        select(revisions.c.environment, revisions.c.number, revisions.c.state)
        .where(revisions.c.model == version.model, revisions.c.label == version.label, revisions.c.state.in_(states))
        .order_by(revisions.c.environment, revisions.c.number)
    )
    users = [
        f"revision {row.number} of {row.environment} is {row.state}"
        + (", and may be rolled back to" if row.state == "superseded" else "")
        for row in rows
    ]
    named = await connection.execute(
        select(aliases.c.name).where(aliases.c.model == version.model, aliases.c.label == version.label)
    )
    users += [f"the alias {version.model}@{name} means it" for name in named.scalars()]
    spoken = {reference, f"{version.model}@{version.digest}", f"{version.model}-{version.label}"}
    pools = await connection.execute(
        select(resources.c.name, resources.c.spec).where(resources.c.kind == "Pool").order_by(resources.c.name)
    )
    users += [f"the pool {row.name} runs it" for row in pools if row.spec.get("build") in spoken]
    running = await connection.execute(
        select(experiments.c.name, experiments.c.spec).where(experiments.c.state.in_(("running", "paused", "decided")))
    )
    users += [
        f"the experiment {row.name} compares it"
        for row in running
        if any(arm.get("build") in spoken for arm in row.spec.get("arms", ()))
    ]
    return users
