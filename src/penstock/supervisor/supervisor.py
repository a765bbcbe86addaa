"""The supervisor: control, gateways, shipper and engine replicas of one machine, kept running until told to drain."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Protocol

from penstock.core.errors import Conflict, Unavailable
from penstock.runtime.port import ReplicaSpec, RunningReplica
from penstock.supervisor.house import DRAIN_ORDER, House, first_free_port
from penstock.supervisor.keeper import Keeper
from penstock.supervisor.logs import Logs
from penstock.supervisor.ports import is_free, reachable
from penstock.supervisor.procfs import Handle, start_ticks
from penstock.supervisor.records import Records
from penstock.supervisor.restarts import next_streak, restart_delay
from penstock.supervisor.spawn import spawn
from penstock.supervisor.values import ProcessSpec, ProcessStatus, RunRecord

_log = logging.getLogger("penstock.supervisor")

ROTATE_EVERY_S = 10.0


class Service(Protocol):
    """What the supervisor serves beside its own API, such as the ledger of limits."""

    async def start(self) -> None:
        """Begins to serve."""
        ...

    async def close(self) -> None:
        """Ends."""
        ...


class Supervisor:
    """Keeps `processes` running, and the engines that control asks for.

    Args:
        house: how engines are started.
        processes: what runs from the beginning to the end.
        records: `data`/run.
        logs: `data`/logs.
        keeper: starts and restarts; owned by the caller, closed by `drain` only through its processes.
        services: started before the first process, closed after the last one.
    """

    def __init__(
        self,
        house: House,
        *,
        processes: Sequence[ProcessSpec] = (),
        records: Records,
        logs: Logs,
        keeper: Keeper,
        services: Sequence[Service] = (),
    ) -> None:
        self.house = house
        self._wanted = processes
        self.draining = False
        self._records = records
        self._logs = logs
        self._keeper = keeper
        self._services = services
        self._launcher: Handle | None = None
        self._launcher_streak = 0
        self._launcher_born = 0.0
        self._rotation: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Starts or adopts everything, keeps it running until SIGTERM or `stop`, then drains and forgets it all."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop)
        self._records.write(
            RunRecord(
                spec=ProcessSpec(name="supervisor", kind="supervisor", argv=()),
                pid=os.getpid(),
                started=start_ticks(os.getpid()) or 0,
                restarts=self._starts_before(),
                at=time.time(),
            )
        )
        for service in self._services:
            await service.start()
        for spec in self._wanted:
            self._keeper.keep(spec)
        self._resume()
        self._watch_launcher()
        self._rotation = self._loop.create_task(self._rotate())
        await self._stop.wait()
        await self._drain()

    def stop(self) -> None:
        """Asks `run` to drain and return."""
        self.draining = True
        self._stop.set()

    def _starts_before(self) -> int:
        record = self._records.read("supervisor")
        return 0 if record is None else record.restarts + 1

    def _resume(self) -> None:
        """Takes up engines that an earlier supervisor kept, and ends workers that are no longer wanted."""
        wanted = {spec.name for spec in self._wanted}
        for record in self._records.all():
            if record.spec.kind == "engine" and record.spec.replica is not None:
                self._keeper.keep(self.house.engine(record.spec.replica, record.spec.port))
            elif record.spec.kind == "examiner" and record.spec.replica is not None:
                self._keeper.keep(self.house.examiner(record.spec.replica))
            elif record.spec.kind == "gateway" and record.spec.name not in wanted:
                handle = self._records.handle(record)
                if handle is not None:
                    handle.send(signal.SIGTERM)
                    handle.close()
                self._records.remove(record.spec.name)

    async def _drain(self) -> None:
        for kinds in DRAIN_ORDER:
            names = [status.name for status in self._keeper.statuses() if status.kind in kinds]
            _log.info("draining %s", ", ".join(names) or f"no {kinds[0]}")
            await asyncio.gather(*(self._keeper.release(name) for name in names))
        for service in reversed(self._services):
            await service.close()
        if self._rotation is not None:
            self._rotation.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rotation
        if self._launcher is not None:
            self._loop.remove_reader(self._launcher.fd)
            self._launcher.close()
        self._records.remove("supervisor")

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_EVERY_S)
            try:
                await asyncio.to_thread(self._logs.rotate)
            except OSError as error:
                _log.warning("the logs cannot be rotated: %s", error)

    # -- the launcher, which watches us in turn ----------------------------------------------------------------------

    def _watch_launcher(self) -> None:
        record = self._records.read("launcher")
        if record is None or self.draining:
            return
        handle = self._records.handle(record)
        if handle is None:
            self._restart_launcher(record)
            return
        self._launcher = handle
        self._launcher_born = self._loop.time()
        self._loop.add_reader(handle.fd, self._launcher_ended, handle)

    def _launcher_ended(self, handle: Handle) -> None:
        self._loop.remove_reader(handle.fd)
        how = handle.collect()
        handle.close()
        self._launcher = None
        if self.draining:
            return
        _log.warning("the launcher (pid %d): %s", handle.pid, how)
        self._launcher_streak = next_streak(self._launcher_streak, self._loop.time() - self._launcher_born)
        self._loop.call_later(restart_delay(self._launcher_streak), self._watch_launcher)

    def _restart_launcher(self, record: RunRecord) -> None:
        """Starts a launcher in place of one that was killed: it watches us, and takes the signal that ends all."""
        log = self._logs.open("launcher")
        try:
            self._launcher = spawn(record.spec.argv, os.environ, log)
        finally:
            os.close(log)
        _log.info("a launcher started with pid %d", self._launcher.pid)
        self._launcher_born = self._loop.time()
        self._loop.add_reader(self._launcher.fd, self._launcher_ended, self._launcher)

    # -- what the API asks -------------------------------------------------------------------------------------------

    def processes(self) -> list[ProcessStatus]:
        """All processes, the supervisor itself and its launcher first."""
        own = [
            ProcessStatus(
                name=record.spec.name,
                kind=record.spec.kind,
                state="draining" if self.draining else "running",
                pid=record.pid,
                port=0,
                url="",
                restarts=record.restarts,
                since=record.at,
                streak=0,
                last_exit="",
            )
            for record in (self._records.read("launcher"), self._records.read("supervisor"))
            if record is not None
        ]
        return own + self._keeper.statuses()

    def start_replica(self, replica: ReplicaSpec) -> RunningReplica:
        """Runs `replica`, or says how it runs if it does already.

        Raises:
            Conflict: if its id runs something else.
            Unavailable: if everything is draining, or it is just being stopped.
        """
        if self.draining:
            raise Unavailable("The supervisor is draining; no replica is started.", retry_after=5.0)
        name = f"engine-{replica.id}"
        status, spec = self._keeper.status(name), self._keeper.spec(name)
        if status is None or spec is None or spec.replica is None:
            wanted = (
                self.house.examiner(replica)
                if replica.task == "examiner"
                else self.house.engine(replica, replica.port or self._port())
            )
            status = self._keeper.keep(wanted)
        elif status.state == "draining":
            raise Unavailable(f"Replica {replica.id!r} is being stopped.", retry_after=1.0)
        elif (spec.replica.directory, spec.replica.model) != (replica.directory, replica.model):
            raise Conflict(
                f"Replica {replica.id!r} runs {spec.replica.directory} as {spec.replica.model!r}; stop it first.",
                param="id",
            )
        return _replica(status)

    async def stop_replica(self, replica_id: str, drain_s: float) -> None:
        """Ends the replica; returns when it has ended."""
        await self._keeper.release(f"engine-{replica_id}", drain_s)

    def replicas(self) -> list[RunningReplica]:
        """All replicas that were started and not stopped."""
        return [_replica(status) for status in self._keeper.statuses() if status.kind == "engine"]

    def _port(self) -> int:
        taken = {status.port for status in self._keeper.statuses()}
        host = reachable(self.house.settings.engine.host)
        return first_free_port(self.house.settings.engine.port, taken, lambda port: is_free(host, port))


def _replica(status: ProcessStatus) -> RunningReplica:
    return RunningReplica(
        id=status.name.removeprefix("engine-"),
        url=status.url,
        pid=status.pid,
        state=status.state,
        restarts=status.restarts,
    )
