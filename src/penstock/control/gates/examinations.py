"""/internal/v1/evaluations: what the examiner asks for work, and tells; and the loop that has one run while something waits."""

import asyncio
import contextlib
import logging
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends
from sqlalchemy import select

from penstock.control.auth import check_service
from penstock.control.context import SYSTEM, Control
from penstock.control.deploy.state import BuildInfo
from penstock.control.gates.evaluations import UNDER_WAY, NewItem, claim, find_evaluation, finish, record
from penstock.control.leases import Lease
from penstock.control.versions.build_claims import builds_wait
from penstock.control.versions.builds import Builds
from penstock.control.versions.find import find_version
from penstock.core.errors import BadRequest, Conflict, NotFound, PenstockError
from penstock.core.jobs import ExaminerJob, Vouched
from penstock.core.references import Reference, parse_reference
from penstock.delivery.pools import BuildKey
from penstock.registry.builds import build_manifest
from penstock.registry.making import WEIGHTS
from penstock.registry.manifest import manifest_digest, read_manifest
from penstock.registry.processing import CODE
from penstock.runtime.port import ReplicaSpec, Runtime
from penstock.store.schema import builds
from penstock.store.schema_gates import evaluation_items, evaluations, suites

_LOG = logging.getLogger("penstock.control")
_LOOK_S = 0.5
_IDLE_S = 20.0  # an examiner that has nothing to do is ended after that
EXAMINER = "examiner"

Told = Annotated[dict[str, Any], Body()]


def examinations_router(control: Control, folders: Builds) -> APIRouter:
    """The endpoints for examiners, which show the service token."""
    router = APIRouter(
        prefix="/internal/v1/evaluations", dependencies=[Depends(check_service)], include_in_schema=False
    )

    @router.post("/claim")
    async def next_job(body: Told) -> dict[str, Any]:
        """The evaluation that the caller is to work on; empty if there is none."""
        holder, engine = str(body.get("holder", ""))[:160], str(body.get("engine", ""))
        if not holder:
            raise BadRequest("An examiner says who it is.", param="holder")
        async with control.deed(SYSTEM) as change:
            row = await claim(change, holder, engine)
        if row is None:
            return {}
        try:
            job = await _job(control, folders, row)
        except (NotFound, PenstockError) as error:
            async with control.deed(SYSTEM) as change:
                await finish(change, row.id, holder, error.message)
            return {}
        told: dict[str, Any] = msgspec.to_builtins(job)
        return told

    @router.post("/{identity}/items")
    async def tell(identity: str, body: Told) -> dict[str, Any]:
        """What came of items; none at all renews the lease. `go_on` is false if the caller is to leave it."""
        try:
            items = msgspec.convert(body.get("items", []), tuple[NewItem, ...])
        except msgspec.ValidationError as error:
            raise BadRequest(f"items: {error}.", param="items") from None
        async with control.deed(SYSTEM) as change:
            return {"go_on": await record(change, identity, str(body.get("holder", "")), items)}

    @router.post("/{identity}/finish")
    async def end(identity: str, body: Told) -> dict[str, Any]:
        """Close it; with `error` it has failed."""
        async with control.deed(SYSTEM) as change:
            with contextlib.suppress(Conflict):  # it was cancelled, or another examiner has it
                await finish(change, identity, str(body.get("holder", "")), str(body.get("error", ""))[:4096])
            row = await find_evaluation(change.connection, identity)
        return {"state": row.state}

    return router


async def _job(control: Control, folders: Builds, row: Any) -> ExaminerJob:
    async with control.database.read() as connection:
        version = await find_version(connection, Reference(name=row.model, label=row.label))
        lines = ""
        if row.kind == "suite":
            statement = select(suites.c.lines).where(suites.c.name == row.suite, suites.c.digest == row.suite_digest)
            lines = (await connection.execute(statement)).scalar_one()
        done = await connection.execute(select(evaluation_items.c.item).where(evaluation_items.c.evaluation == row.id))
        answered = tuple(done.scalars())
        judge, judge_name = None, str(row.settings.get("judge", ""))
        if judge_name:
            other = await find_version(connection, parse_reference(judge_name))
            statement = select(builds).where(builds.c.model == other.model, builds.c.label == other.label)
            found = {one.precision: one for one in await connection.execute(statement)}
            if not found:
                raise NotFound(f"The judge {judge_name} has no build.")
            judge = _info(other, found.get("int8") or next(iter(found.values())))
        mine = await connection.execute(
            select(builds).where(
                builds.c.model == row.model, builds.c.label == row.label, builds.c.precision == row.precision
            )
        )
        build = mine.one_or_none()
    if build is None:
        raise NotFound(f"{row.model}:{row.label} has no build in {row.precision} any more.")
    weights = ""
    part = build_manifest(read_manifest(version.manifest, version.digest), WEIGHTS)
    if part is not None and '"memorisation"' in lines:
        key = BuildKey(model=row.model, label=row.label, precision=WEIGHTS)
        info = BuildInfo(key=key, digest=manifest_digest(part), version_digest=version.digest, folder=WEIGHTS)
        weights = str((await folders.folder(info)).resolve())
    vouched: dict[str, Vouched] = {}
    return ExaminerJob(
        id=row.id,
        kind=row.kind,
        model=row.model,
        label=row.label,
        build=await _folder(folders, _info(version, build), vouched),
        weights=weights,
        judge=await _folder(folders, judge, vouched) if judge is not None else "",
        vouched=vouched,
        lines=lines,
        prompts=tuple(row.settings.get("prompts", ())),
        seed=int(row.settings.get("seed", 1)),
        together=int(row.settings.get("together", 1)),
        max_tokens=int(row.settings.get("max_tokens", 64)),
        total=row.total,
        answered=answered,
    )


async def _folder(folders: Builds, build: BuildInfo, vouched: dict[str, Vouched]) -> str:
    """Where `build` lies; for one that brings code of its own `vouched` gets what its engine has to see."""
    folder = (await folders.folder(build)).resolve()
    if (folder / CODE).is_file():
        told, digest, keys = await folders.provenance(build)
        vouched[str(folder)] = Vouched(provenance=str(told.resolve()), digest=digest, keys=keys)
    return str(folder)


def _info(version: Any, build: Any) -> BuildInfo:
    return BuildInfo(
        key=BuildKey(model=build.model, label=build.label, precision=build.precision),
        digest=build.digest,
        version_digest=version.digest,
        folder=build.folder,
    )


class Examinations:
    """Has an examiner run while evaluations wait, under the runtime. Run it as a task."""

    def __init__(self, control: Control, runtime: Runtime) -> None:
        self._control = control
        self._runtime = runtime
        self._lease = Lease(control, "examinations")
        self._idle_since: float | None = None
        self._running = True  # one may run since before this process

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                if await self._lease.held():
                    await self.step()
            except PenstockError as error:
                _LOG.warning("evaluations: %s", error.message)
            await asyncio.sleep(_LOOK_S)

    async def step(self) -> None:
        """Start the examiner if something waits, end it if nothing has for a while.

        Raises:
            Unavailable: if the runtime or the database cannot be reached.
        """
        async with self._control.database.read() as connection:
            statement = select(evaluations.c.id).where(evaluations.c.state.in_(UNDER_WAY), evaluations.c.kind != "scan")
            waits = (await connection.execute(statement.limit(1))).first() is not None
        waits = waits or await builds_wait(self._control)
        now = self._control.clock()
        if waits:
            self._idle_since = None
            if not self._running:
                _LOG.info("an examiner is started")
            await self._runtime.start(ReplicaSpec(id=EXAMINER, directory="", model="", task="examiner"))
            self._running = True
        elif self._running:
            self._idle_since = self._idle_since or now
            if now - self._idle_since >= _IDLE_S:
                await self._runtime.stop(EXAMINER, drain_s=5.0)
                self._running = False
