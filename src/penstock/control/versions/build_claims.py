"""/internal/v1/builds: what the examiner asks for builds to make, and tells of them."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends
from sqlalchemy import select

from penstock.control.auth import check_service
from penstock.control.context import SYSTEM, Control
from penstock.control.deploy.state import BuildInfo
from penstock.control.versions.build_intake import FOLDER
from penstock.control.versions.build_jobs import claim_job, find_job, hand_in, tell_job
from penstock.control.versions.builds import Builds
from penstock.control.versions.rows import find_row
from penstock.core.errors import BadRequest, Conflict, PenstockError
from penstock.core.jobs import BuildJob
from penstock.delivery.pools import BuildKey
from penstock.registry.builds import build_manifest
from penstock.registry.making import weights_folder
from penstock.registry.manifest import manifest_digest, read_manifest
from penstock.store.schema_builds import build_jobs

TOOLCHAINS = "toolchains"  # in the data folder: environments of converters, by the digest of what they were made from
_LONGEST_STEP = 1024

Told = Annotated[dict[str, Any], Body()]


def build_claims_router(control: Control, folders: Builds) -> APIRouter:
    """The endpoints for examiners, which show the service token."""
    router = APIRouter(prefix="/internal/v1/builds", dependencies=[Depends(check_service)], include_in_schema=False)

    @router.post("/claim")
    async def next_job(body: Told) -> dict[str, Any]:
        """The build that the caller is to make; empty if there is none."""
        holder = _holder(body)
        async with control.deed(SYSTEM) as change:
            row = await claim_job(change, holder)
        if row is None:
            return {}
        try:
            job = await _job(control, folders, row)
        except PenstockError as error:
            async with control.deed(SYSTEM) as change:
                await hand_in(change, row.id, holder, "", error.message)
            return {}
        told: dict[str, Any] = msgspec.to_builtins(job)
        return told

    @router.post("/{identity}/step")
    async def tell(identity: str, body: Told) -> dict[str, Any]:
        """What begins now; nothing renews the lease alone. `go_on` is false if the caller is to leave it."""
        step = str(body.get("step", ""))[:_LONGEST_STEP]
        async with control.deed(SYSTEM) as change:
            return {"go_on": await tell_job(change, identity, _holder(body), step)}

    @router.post("/{identity}/finish")
    async def end(identity: str, body: Told) -> dict[str, Any]:
        """It lies in its folder; with `error` it could not be made."""
        error, converter = str(body.get("error", ""))[:4096], str(body.get("converter", ""))[:4096]
        async with control.deed(SYSTEM) as change:
            try:
                row = await hand_in(change, identity, _holder(body), converter, error)
            except Conflict:  # it was cancelled, or another examiner has it
                row = await find_job(change.connection, identity)
        return {"state": row.state}

    return router


def _holder(body: dict[str, Any]) -> str:
    holder = str(body.get("holder", ""))[:160]
    if not holder:
        raise BadRequest("An examiner says who it is.", param="holder")
    return holder


async def _job(control: Control, folders: Builds, row: Any) -> BuildJob:
    async with control.database.read() as connection:
        version = await find_row(connection, row.model, row.label)
    manifest = read_manifest(version.manifest, version.digest)
    folder = weights_folder(manifest)
    part = build_manifest(manifest, folder) if folder is not None else None
    if folder is None or part is None:
        raise Conflict(f"{row.model}:{row.label} holds no safetensors.", code="no_weights")
    key = BuildKey(model=row.model, label=row.label, precision="")
    info = BuildInfo(key=key, digest=manifest_digest(part), version_digest=version.digest, folder=folder)
    source = await folders.folder(info)
    return BuildJob(
        id=row.id,
        model=row.model,
        label=row.label,
        engine=row.engine,
        precision=row.precision,
        source=str(source.resolve()),
        target=str((control.data / FOLDER / row.id).resolve()),
        toolchains=str((control.data / TOOLCHAINS).resolve()),
    )


async def builds_wait(control: Control) -> bool:
    """Whether an examiner has builds to make.

    Raises:
        Unavailable: if the database cannot be read.
    """
    statement = select(build_jobs.c.id).where(build_jobs.c.state.in_(("queued", "running"))).limit(1)
    async with control.database.read() as connection:
        return (await connection.execute(statement)).first() is not None
