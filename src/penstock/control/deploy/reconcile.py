"""The reconcile loop: observe what runs, plan (pure, `delivery.plan`), do it. Its leader alone acts."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import httpx
import msgspec
from sqlalchemy import delete, insert, update

from penstock.control.context import SYSTEM, Change, Control
from penstock.control.deploy.publisher import Publisher
from penstock.control.deploy.record import fail, go_live
from penstock.control.deploy.snapshot import pools_to_run, served
from penstock.control.deploy.state import State
from penstock.control.leases import Lease
from penstock.control.readiness import Readiness
from penstock.control.versions.builds import Builds
from penstock.core.errors import NotFound, PenstockError
from penstock.delivery.plan import (
    Action,
    Desired,
    GiveUp,
    GoLive,
    Observed,
    Pending,
    Publish,
    SeenReplica,
    Start,
    Stop,
    Unpublish,
    plan,
)
from penstock.delivery.pools import WantedPool
from penstock.runtime.port import ReplicaSpec, RunningReplica, Runtime
from penstock.store.schema import replicas

_LOG = logging.getLogger("penstock.control")
_IDLE_S = 0.5
_BUSY_S = 0.1  # while something is warming up
_PROBE_S = 2.0
_STEP = "replicas"


class Reconciler:
    """Brings the replicas that run to those that are wanted. Run it as a task."""

    def __init__(
        self,
        control: Control,
        publisher: Publisher,
        runtime: Runtime,
        readiness: Readiness,
        *,
        drain_s: float = 20.0,
        builds: Builds | None = None,
    ) -> None:
        self._control = control
        self._publisher = publisher
        self._runtime = runtime
        self._readiness = readiness
        self._drain_s = drain_s
        self._builds = builds or Builds(control)
        self._lease = Lease(control, "reconcile")
        self._released: dict[str, float] = {}
        self._unready: dict[str, float] = {}
        self._doing: dict[str, asyncio.Task[None]] = {}
        self.failures = 0

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with httpx.AsyncClient(timeout=_PROBE_S, trust_env=False) as probe:
            try:
                while True:
                    self._control.changed.clear()
                    pause = await self._round(probe)
                    try:
                        async with asyncio.timeout(pause):
                            await self._control.changed.wait()
                    except TimeoutError:
                        pass
            finally:
                for task in self._doing.values():
                    task.cancel()
                await asyncio.gather(*self._doing.values(), return_exceptions=True)

    async def _round(self, probe: httpx.AsyncClient) -> float:
        try:
            if not await self._lease.held():
                self._readiness.done(_STEP)  # the leader sees to it
                return _IDLE_S
            busy = await self.step(probe)
        except PenstockError as error:
            self.failures += 1
            self._failed("reconcile", error.message)
            return _IDLE_S
        self._readiness.went_well("reconcile")
        return _BUSY_S if busy else _IDLE_S

    async def step(self, probe: httpx.AsyncClient) -> bool:
        """One round: observe, plan, do. Tells whether something is still on its way.

        Raises:
            Unavailable: if the runtime or the database cannot be reached; nothing was changed then.
        """
        state = await self._publisher.state()
        desired = _desired(state)
        observed = await self._observe(state, probe)
        actions = plan(desired, observed, self._control.clock())
        await self._record([action for action in actions if not isinstance(action, Start | Stop)])
        for action in actions:
            if isinstance(action, Start):
                pool = next(pool for pool in desired.pools if pool.name == action.pool)
                self._begin(action.id, self._start(action, pool, state))
            elif isinstance(action, Stop):
                self._begin(action.id, self._stop(action.id))
        self._tell_readiness(state, observed, actions)
        return bool(actions or desired.pending or self._doing)

    async def _observe(self, state: State, probe: httpx.AsyncClient) -> Observed:
        running = [r for r in await self._runtime.list() if r.state != "stopped"]
        ready = await asyncio.gather(*(self._ready(replica, probe) for replica in running))
        now = self._control.clock()
        for replica, yes in zip(running, ready, strict=True):
            if yes:
                self._unready.pop(replica.id, None)
            else:
                self._unready.setdefault(replica.id, now)
        there = {replica.id for replica in running}
        self._released = {i: at for i, at in self._released.items() if i in there}
        self._unready = {i: at for i, at in self._unready.items() if i in there}
        return Observed(
            replicas=tuple(
                SeenReplica(
                    id=replica.id,
                    url=replica.url,
                    ready=yes,
                    broken=replica.state == "failed",
                    restarts=replica.restarts,
                    unready_since=self._unready.get(replica.id, now),
                )
                for replica, yes in zip(running, ready, strict=True)
            ),
            published={row.id: row.url for row in state.replicas},
            released=dict(self._released),
            busy=frozenset(self._doing),
        )

    async def _ready(self, replica: RunningReplica, probe: httpx.AsyncClient) -> bool:
        if replica.state not in {"starting", "running"} or not replica.url:
            return False
        try:
            return (await probe.get(f"{replica.url}/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def _record(self, actions: list[Action]) -> None:
        if not actions:
            return
        async with self._control.change(SYSTEM) as change:
            for action in actions:
                await _write(change, action, self._control.settings.control.environment)
        for action in actions:
            _LOG.info("%s", msgspec.json.encode(action).decode())
            if isinstance(action, Unpublish):
                self._released[action.id] = self._control.clock()

    def _begin(self, identity: str, work: Coroutine[Any, Any, None]) -> None:
        async def do() -> None:
            try:
                await work
                self._readiness.went_well(identity)
            except PenstockError as error:
                self.failures += 1
                self._failed(identity, error.message)
                await asyncio.sleep(_IDLE_S)  # the next round tries again
            except Exception:  # noqa: BLE001 - a task ends here, and the next round tries again
                self.failures += 1
                _LOG.exception("%s failed", identity)
                await asyncio.sleep(_IDLE_S)
            finally:
                self._doing.pop(identity, None)
                self._control.changed.set()

        self._doing[identity] = asyncio.create_task(do(), name=f"reconcile {identity}")

    async def _start(self, action: Start, pool: WantedPool, state: State) -> None:
        build = state.builds.get(pool.build)
        if build is None:
            raise NotFound(f"{pool.build.model}:{pool.build.label} has no build in {pool.build.precision}.")
        folder = await self._builds.folder(build)
        args: tuple[str, ...] = ("--prefix-cache",) if pool.prefix_cache else ()
        told, expected, signers = await self._builds.provenance(build)
        args += ("--provenance", str(told.resolve()), "--trust", expected)
        args += tuple(part for key in signers for part in ("--trust", key))
        started = await self._runtime.start(
            ReplicaSpec(
                id=action.id,
                directory=str(folder.resolve()),
                model=pool.build.model,
                args=args,
            )
        )
        _LOG.info("started %s at %s", started.id, started.url)

    async def _stop(self, identity: str) -> None:
        await self._runtime.stop(identity, drain_s=self._drain_s)
        _LOG.info("stopped %s", identity)

    def _failed(self, subject: str, message: str) -> None:
        before = self._readiness.why(subject)
        self._readiness.failed(subject, message, self._control.clock())
        if message != before:
            _LOG.warning("%s: %s", subject, message)

    def _tell_readiness(self, state: State, observed: Observed, actions: list[Action]) -> None:
        ready = {r.id.rpartition("-")[0] for r in observed.replicas if r.ready and r.id in observed.published}
        going = {action.revision for action in actions if isinstance(action, GoLive)}
        for deployment in state.deployments:
            if not served(deployment.environment, state):
                continue
            revision = deployment.live or deployment.wanted
            if deployment.live is None or revision.build.pool not in ready or revision.id in going:
                detail = self._readiness.why(f"{revision.build.pool}-0") or "its replicas are still loading"
                if revision.state == "failed":
                    detail = "its replicas do not start; their logs say why"
                self._readiness.wants(
                    _STEP, f"of {revision.model}:{revision.label} in {deployment.environment}: {detail}"
                )
                return
        self._readiness.done(_STEP)


def _desired(state: State) -> Desired:
    pools = pools_to_run(state)
    return Desired(
        pools=pools,
        pending=tuple(
            Pending(revision=d.wanted.id, pool=d.wanted.build.pool, since=d.wanted.created_at)
            for d in state.deployments
            if d.wanted.state == "pending" and served(d.environment, state)
        ),
    )


async def _write(change: Change, action: Action, own_environment: str) -> None:
    connection = change.connection
    if isinstance(action, Publish):
        values = {"pool": action.pool, "url": action.url, "ready_at": change.now}
        changed = await connection.execute(update(replicas).where(replicas.c.id == action.id).values(**values))
        if changed.rowcount == 0:
            await connection.execute(insert(replicas).values(id=action.id, **values))
        await change.audit("replica.publish", f"{action.pool}/{action.id}", pool=action.pool, url=action.url)
    elif isinstance(action, Unpublish):
        await connection.execute(delete(replicas).where(replicas.c.id == action.id))
        pool = action.id.rpartition("-")[0]
        await change.audit("replica.unpublish", f"{pool}/{action.id}", pool=pool)
    elif isinstance(action, GoLive):
        await go_live(change, action.revision, own_environment=own_environment)
    elif isinstance(action, GiveUp):
        await fail(change, action.revision, action.detail)
