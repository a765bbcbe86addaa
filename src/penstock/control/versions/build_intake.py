"""What a job has made becomes a build: its files are stored, and its row stands in one transaction. Run while control runs."""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import SYSTEM, Control
from penstock.control.leases import Lease
from penstock.control.storage.local_files import file_digests, file_pieces
from penstock.control.versions.build_jobs import UNDER_WAY, fail_job, find_build, find_job
from penstock.control.versions.rows import find_row
from penstock.control.versions.tradeoff import ask_measurements
from penstock.core.errors import BadRequest, Conflict, Damaged, NotFound, PenstockError
from penstock.engine.folder import read_folder
from penstock.registry.builds import build_manifest
from penstock.registry.making import folder_of, made_manifest
from penstock.registry.manifest import Manifest, canonical, manifest_digest, read_manifest
from penstock.store.block_index import touch_file
from penstock.store.schema import builds
from penstock.store.schema_builds import build_jobs

_LOG = logging.getLogger("penstock.control")
_LOOK_S = 0.5
FOLDER = "building"  # in the data folder: a folder for each job under way


class BuildIntake:
    """Takes in what jobs hand in. Run it as a task."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._lease = Lease(control, "builds")

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                if await self._lease.held():
                    while await self.step():
                        pass
            except PenstockError as error:
                _LOG.warning("builds: %s", error.message)
            await asyncio.sleep(_LOOK_S)

    async def step(self) -> bool:
        """Take in the eldest that waits; False if none does.

        Raises:
            Unavailable: if the store or the database fails; it is tried again then.
        """
        building = self._control.data / FOLDER
        there = await asyncio.to_thread(_names, building)
        async with self._control.database.read() as connection:
            statement = select(build_jobs).where(build_jobs.c.state == "storing").order_by(build_jobs.c.created_at)
            row = (await connection.execute(statement.limit(1))).one_or_none()
            live = select(build_jobs.c.id).where(build_jobs.c.id.in_(there), build_jobs.c.state.in_(UNDER_WAY))
            kept = set((await connection.execute(live)).scalars()) if there else set()
        for name in there:
            if name not in kept:
                await asyncio.to_thread(shutil.rmtree, building / name, ignore_errors=True)
        if row is None:
            return False
        folder = building / row.id
        try:
            await self._take(row, folder)
        except (BadRequest, Conflict, Damaged, NotFound) as error:
            async with self._control.deed(SYSTEM) as change:
                await fail_job(change, row, error.message)
        return True

    async def _take(self, row: Any, folder: Path) -> None:
        await asyncio.to_thread(read_folder, folder)  # says what is missing
        files = await asyncio.to_thread(file_digests, folder)
        for name, (digest, size) in files.items():
            await self._control.blobs.put_new(digest, file_pieces(folder / name), size=size)
        async with self._control.change(SYSTEM) as change:
            job = await find_job(change.connection, row.id)
            if job.state != "storing":
                change.abandon()
                return
            version = await find_row(change.connection, row.model, row.label)
            if version.state == "deleted":
                raise Conflict(f"{row.model}:{row.label} was deleted meanwhile.", code="version_deleted")
            if await find_build(change.connection, version, row.precision) is not None:
                raise Conflict(f"{row.model}:{row.label} has a build in {row.precision} already.", code="build_exists")
            whole = read_manifest(version.manifest, version.digest)
            place = folder_of(row.engine, row.precision)
            manifest = made_manifest(whole, place, files)
            part = build_manifest(manifest, place)
            assert part is not None
            if not await _touch(self._control, change.connection, manifest):
                raise Damaged(f"Files of the build {row.id} were swept while they were stored.")
            await change.connection.execute(
                insert(builds).values(
                    model=row.model,
                    label=row.label,
                    precision=row.precision,
                    engine=row.engine,
                    folder=place,
                    digest=manifest_digest(part),
                    size=part.size,
                    created_at=change.now,
                    manifest=canonical(manifest).decode(),
                    job=row.id,
                )
            )
            await change.connection.execute(
                update(build_jobs)
                .where(build_jobs.c.id == row.id)
                .values(state="done", build=manifest_digest(part), size=part.size, finished_at=change.now)
            )
            name = f"{row.model}:{row.label}"
            await change.audit(
                "build.commit", name, job=row.id, precision=row.precision, digest=manifest_digest(part), size=part.size
            )
            if row.measure:
                await ask_measurements(change, version, only=row.precision)
        _LOG.info("%s:%s has a build in %s", row.model, row.label, row.precision)


async def _touch(control: Control, connection: AsyncConnection, manifest: Manifest) -> bool:
    for digest in {entry.digest for entry in manifest.files.values()}:
        there = await touch_file(connection, digest, control.clock())
        if there is None and await control.blobs.whole.size(digest) is None:
            return False
    return True


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
