"""The build step: a version that brings no folder for the engine has one made of its weights (`control.versions.build_jobs`)."""

import contextlib
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.versions.build_jobs import cancel_job, request_build
from penstock.core.errors import Conflict
from penstock.store.schema_builds import build_jobs

ENGINE = "openvino"


async def ask_for_build(change: Change, version: Any, precision: str) -> str:
    """Have the build made, or go on waiting for one that is being made; the id of the job if it is a new one, else "".

    Raises:
        Conflict: if the version holds no weights to make it of.
    """
    job = await request_build(change, version, ENGINE, precision, measure=False)
    return job.id if job.created_at == change.now else ""


async def cancel_build(change: Change, job: str) -> None:
    """End the job, if it has not ended."""
    with contextlib.suppress(Conflict):
        await cancel_job(change, job)


async def standing_of_build(connection: AsyncConnection, version: Any, precision: str) -> tuple[str, str]:
    """How the newest job that makes it stands, and in words; ("", ""): there is none."""
    mine = (build_jobs.c.digest == version.digest) & (build_jobs.c.precision == precision)
    mine &= (build_jobs.c.model == version.model) & (build_jobs.c.label == version.label)
    statement = select(build_jobs).where(mine, build_jobs.c.engine == ENGINE)
    newest = statement.order_by(build_jobs.c.created_at.desc(), build_jobs.c.id.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    if row is None:
        return "", ""
    step = f": {row.steps[-1]['step']}" if row.steps else ""
    return row.state, row.detail or f"The build {row.id} in {precision} is {row.state}{step}."
