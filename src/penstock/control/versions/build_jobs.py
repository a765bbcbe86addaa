"""Jobs that make builds, as rows: asked for, taken by an examiner under a lease, told step by step; what they bring is taken in by `build_intake`."""

from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.core.errors import Conflict, NotFound
from penstock.registry.making import weights_folder
from penstock.registry.manifest import read_manifest
from penstock.store.schema import builds
from penstock.store.schema_builds import build_jobs

LEASE_S = 20.0
WORKED_ON = ("queued", "running")  # by an examiner, now or soon
UNDER_WAY = (*WORKED_ON, "storing")
_MOST_STEPS = 100


async def request_build(change: Change, version: Any, engine: str, precision: str, *, measure: bool) -> Row[Any]:
    """The job that makes this build of the version whose row is given: the one that did or does, else a new one in the queue.

    Raises:
        Conflict: if the version is deleted, has no weights to make it of, or brought such a build with it.
    """
    reference = f"{version.model}:{version.label}"
    if version.state == "deleted":
        raise Conflict(f"{reference} is deleted.", code="version_deleted", param="label")
    mine = (build_jobs.c.digest == version.digest) & (build_jobs.c.engine == engine)
    mine &= (build_jobs.c.model == version.model) & (build_jobs.c.label == version.label)
    mine &= (build_jobs.c.precision == precision) & build_jobs.c.state.in_((*UNDER_WAY, "done"))
    job = (await change.connection.execute(select(build_jobs).where(mine))).first()
    if job is not None:
        return job
    if await find_build(change.connection, version, precision) is not None:
        raise Conflict(
            f"{reference} brought a build in {precision} with it, and a precision has one build.",
            code="build_exists",
            param="precision",
        )
    if weights_folder(read_manifest(version.manifest, version.digest)) is None:
        raise Conflict(
            f"{reference} holds no safetensors to make a build of.",
            code="no_weights",
            param="label",
            hint="Push the version with its weights in a folder safetensors.",
        )
    identity = change.new_id("build")
    await change.connection.execute(
        insert(build_jobs).values(
            id=identity,
            model=version.model,
            label=version.label,
            digest=version.digest,
            engine=engine,
            precision=precision,
            measure=measure,
            state="queued",
            detail="",
            steps=[],
            converter="",
            build="",
            size=0,
            holder="",
            lease_until=0.0,
            requested_by=change.caller.name,
            created_at=change.now,
        )
    )
    await change.audit("build.request", reference, job=identity, engine=engine, precision=precision)
    return await find_job(change.connection, identity)


async def find_build(connection: AsyncConnection, version: Any, precision: str) -> Row[Any] | None:
    """The row of the build of a version in `precision`; None: there is none."""
    statement = select(builds).where(
        builds.c.model == version.model, builds.c.label == version.label, builds.c.precision == precision
    )
    return (await connection.execute(statement)).one_or_none()


async def find_job(connection: AsyncConnection, identity: str) -> Row[Any]:
    """The job of this id.

    Raises:
        NotFound: if there is none.
    """
    row = (await connection.execute(select(build_jobs).where(build_jobs.c.id == identity))).one_or_none()
    if row is None:
        raise NotFound(f"There is no build job {identity!r}.", param="id")
    return row


async def claim_job(change: Change, holder: str) -> Row[Any] | None:
    """The job that `holder` is to work on, from its beginning: its own that was cut off, one whose examiner is silent, else the eldest that waits; None: none."""
    free = (build_jobs.c.holder == holder) | (build_jobs.c.lease_until <= change.now)
    for condition in ((build_jobs.c.state == "running") & free, build_jobs.c.state == "queued"):
        statement = select(build_jobs).where(condition).order_by(build_jobs.c.created_at, build_jobs.c.id).limit(1)
        row = (await change.connection.execute(statement)).one_or_none()
        if row is None:
            continue
        taken = await change.connection.execute(
            update(build_jobs)
            .where(build_jobs.c.id == row.id, build_jobs.c.state == row.state, build_jobs.c.holder == row.holder)
            .values(
                state="running",
                holder=holder,
                lease_until=change.now + LEASE_S,
                started_at=change.now,
                steps=[],
                detail="",
            )
        )
        if taken.rowcount == 1:
            return await find_job(change.connection, row.id)
    return None


async def tell_job(change: Change, identity: str, holder: str, step: str) -> bool:
    """Keep that `step` begins now, and the lease; "" is no step. False if the job is not the holder's to go on with."""
    statement = select(build_jobs).where(
        build_jobs.c.id == identity, build_jobs.c.state == "running", build_jobs.c.holder == holder
    )
    row = (await change.connection.execute(statement)).one_or_none()
    if row is None:
        return False
    values: dict[str, Any] = {"lease_until": change.now + LEASE_S}
    if step and len(row.steps) < _MOST_STEPS:
        values["steps"] = [*row.steps, {"step": step, "at": change.now}]
    kept = await change.connection.execute(
        update(build_jobs).where(build_jobs.c.id == identity, build_jobs.c.state == "running").values(**values)
    )
    return kept.rowcount == 1


async def hand_in(change: Change, identity: str, holder: str, converter: str, error: str) -> Row[Any]:
    """What the examiner made lies in its folder, to be taken in; with `error` it could not be made.

    Raises:
        Conflict: if the job is not the holder's.
    """
    row = await find_job(change.connection, identity)
    if row.state != "running" or row.holder != holder:
        raise Conflict(f"The build job {identity} is {row.state}, and not {holder}'s.")
    if error:
        return await fail_job(change, row, error)
    values = {"state": "storing", "converter": converter, "steps": [*row.steps, {"step": "storing", "at": change.now}]}
    await change.connection.execute(update(build_jobs).where(build_jobs.c.id == identity).values(**values))
    return await find_job(change.connection, identity)


async def fail_job(change: Change, row: Any, error: str) -> Row[Any]:
    """Close the job: no build comes of it."""
    await change.connection.execute(
        update(build_jobs).where(build_jobs.c.id == row.id).values(state="failed", detail=error, finished_at=change.now)
    )
    await change.audit("build.fail", f"{row.model}:{row.label}", job=row.id, precision=row.precision, error=error)
    return await find_job(change.connection, row.id)


async def cancel_job(change: Change, identity: str) -> Row[Any]:
    """End a job that waits or runs.

    Raises:
        NotFound: if there is none.
        Conflict: if it is past that.
    """
    row = await find_job(change.connection, identity)
    if row.state not in WORKED_ON:
        raise Conflict(f"The build job {identity} is {row.state} already.")
    await change.connection.execute(
        update(build_jobs)
        .where(build_jobs.c.id == identity)
        .values(state="cancelled", detail=f"Cancelled by {change.caller.name}.", finished_at=change.now)
    )
    await change.audit("build.cancel", f"{row.model}:{row.label}", job=identity, precision=row.precision)
    return await find_job(change.connection, identity)


async def made_build(connection: AsyncConnection, version: Any, precision: str) -> Row[Any]:
    """The row of a build that was made here.

    Raises:
        Conflict: if there is none: those that a version brought are part of what is signed with it.
    """
    build = await find_build(connection, version, precision)
    if build is None or build.manifest is None:
        raise Conflict(
            f"{version.model}:{version.label} has no build in {precision} that was made here.",
            code="build_missing",
            param="precision",
            hint="What a version brought with it is signed with the version.",
        )
    return build
