"""`penstock up` in the foreground: starts the supervisor, watches it, and carries the signals that end everything."""

import asyncio
import ctypes
import logging
import os
import signal
import time
from collections.abc import Coroutine, Mapping
from typing import Protocol
from urllib.parse import quote

import msgspec

from penstock.core.errors import PenstockError, Unavailable
from penstock.supervisor.folder import DataFolder
from penstock.supervisor.health import fetch, wait_healthy
from penstock.supervisor.logs import Logs
from penstock.supervisor.procfs import Handle, is_zombie, start_ticks, state_of
from penstock.supervisor.query import processes
from penstock.supervisor.records import Records
from penstock.supervisor.restarts import FAILED_STREAK, next_streak, restart_delay
from penstock.supervisor.spawn import spawn
from penstock.supervisor.values import ProcessSpec, ProcessStatus, RunRecord
from penstock.supervisor.vigil import until_silent

_log = logging.getLogger("penstock.launcher")

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.1
_GIVE_UP_STREAK = 3  # a process that refused to start this often will not start: say why and end
KILLED_EXIT = 130


class Progress(Protocol):
    """How people are told what goes on."""

    def begin(self, step: str) -> None:
        """A step that takes time has begun; the one before is done."""
        ...

    def end(self) -> None:
        """The last step is done."""
        ...

    def detail(self, text: str) -> None:
        """What the step is at."""
        ...

    def note(self, text: str) -> None:
        """Something that people should know."""
        ...


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where the two processes that people speak to answer: `http://host:port`."""

    gateway: str
    control: str


class _NotReady(msgspec.Struct):
    status: str = ""
    missing: list[str] = []


class Launcher:
    """Holds the supervisor of one data folder.

    Args:
        folder: prepared and locked by the caller.
        supervisor: the command that runs the supervisor.
        itself: the command that runs a launcher in this one's place, should it be killed.
        environment: of both.
        drain_bound_s: how long a drain may take before what is left is killed.
        hang_s: a supervisor that says nothing so long is killed and started again; 0: it is not.
    """

    def __init__(
        self,
        folder: DataFolder,
        *,
        supervisor: tuple[str, ...],
        itself: tuple[str, ...],
        environment: Mapping[str, str],
        progress: Progress,
        drain_bound_s: float,
        hang_s: float,
    ) -> None:
        self._folder = folder
        self._argv = supervisor
        self._itself = itself
        self._environment = environment
        self._progress = progress
        self._drain_bound_s = drain_bound_s
        self._hang_s = hang_s
        self._vigil: asyncio.Task[None] | None = None
        self._records = Records(folder.run)
        self._logs = Logs(folder.logs)
        self._loop = asyncio.get_running_loop()
        self._supervisor: Handle | None = None
        self._born = 0.0
        self._streak = 0
        self._log_start = 0
        self._stopping = False
        self._over: asyncio.Future[int] = self._loop.create_future()
        self._jobs: set[asyncio.Task[None]] = set()

    # -- from outside ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to watch: adopts the supervisor that lives, or starts one.

        Raises:
            Unavailable: if the run records cannot be written.
        """
        _become_subreaper()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._signalled)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        earlier = self._records.read("launcher")
        try:
            self._records.write(
                RunRecord(
                    spec=ProcessSpec(name="launcher", kind="launcher", argv=self._itself),
                    pid=os.getpid(),
                    started=start_ticks(os.getpid()) or 0,
                    restarts=0 if earlier is None else earlier.restarts + 1,
                    at=time.time(),
                )
            )
        except OSError as error:
            raise Unavailable(f"{self._folder.run} cannot be written: {error.strerror}.") from None
        record = self._records.read("supervisor")
        handle = None if record is None else self._records.handle(record)
        if handle is not None:
            self._watch(handle)
        else:
            self._spawn()

    async def ready(self, endpoints: Endpoints, *, first: bool) -> bool:
        """Returns True once control and gateway at `endpoints` answer `/readyz` with 200, False if told to stop before.

        `first` says whether the folder is new, and decides the wording alone.

        Raises:
            Unavailable: if a process will not start; says which and why.
        """
        self._progress.begin("starting the control plane")
        if not await self._answers(f"{endpoints.control}/healthz"):
            return False
        self._progress.begin("registering the models and loading replicas" if first else "loading replicas")
        if not await self._answers(f"{endpoints.control}/readyz"):
            return False
        self._progress.begin("opening the gateway")
        if not await self._answers(f"{endpoints.gateway}/readyz"):
            return False
        self._progress.end()
        return True

    async def over(self) -> int:
        """The exit status, when everything has ended."""
        return await asyncio.shield(self._over)

    def stop(self) -> None:
        """Drains everything; `over` tells when that is done."""
        if self._stopping:
            return
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.send(signal.SIGTERM)
        else:
            self._run(self._end_rest())
        self._loop.call_later(self._drain_bound_s, self._kill, 1)

    # -- watching ----------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        if self._stopping:
            return
        self._log_start = self._logs.size("supervisor")
        try:
            log = self._logs.open("supervisor")
            try:
                self._watch(spawn(self._argv, self._environment, log))
            finally:
                os.close(log)
        except OSError as error:
            self._finish_with(Unavailable(f"The supervisor cannot be started: {error.strerror}."))

    def _watch(self, handle: Handle) -> None:
        self._supervisor = handle
        self._born = time.monotonic()
        self._loop.add_reader(handle.fd, self._ended, handle)
        if self._hang_s:
            self._vigil = self._loop.create_task(self._keep_vigil(handle))

    async def _keep_vigil(self, handle: Handle) -> None:
        url = f"unix://{quote(str(self._folder.supervisor_socket))}?/healthz"
        await wait_healthy(url)
        await until_silent(url, self._hang_s)
        if not self._stopping:
            how = state_of(handle.pid)
            _log.error("the supervisor (pid %d, %s) has said nothing for %.0f s", handle.pid, how, self._hang_s)
            self._progress.note(f"the supervisor has said nothing for {self._hang_s:.0f} s ({how}) and is killed")
            handle.send(signal.SIGKILL)

    def _ended(self, handle: Handle) -> None:
        self._loop.remove_reader(handle.fd)
        how = handle.collect()
        handle.close()
        self._supervisor = None
        if self._vigil is not None:
            self._vigil.cancel()
            self._vigil = None
        self._reap()
        if self._records.read("supervisor") is None and not how.startswith(("killed", "exit status 1")):
            self._finish(0)  # it drained and forgot everything
            return
        if self._stopping:
            self._run(self._end_rest())
            return
        self._streak = next_streak(self._streak, time.monotonic() - self._born)
        if self._streak >= FAILED_STREAK:
            sentence = self._logs.last_line("supervisor", self._log_start)
            self._finish_with(Unavailable(f"The supervisor does not start ({how}): {sentence}"))
            return
        self._progress.note(f"the supervisor ended ({how}) and is started again")
        self._loop.call_later(restart_delay(self._streak), self._spawn)

    def _reap(self) -> None:
        """Collects orphans of a killed supervisor, which come to us; the supervisor itself is collected by its pidfd."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or (self._supervisor is not None and found.si_pid == self._supervisor.pid):
                return
            os.waitpid(found.si_pid, os.WNOHANG)

    # -- the wait for readiness --------------------------------------------------------------------------------------

    async def _answers(self, url: str) -> bool:
        while True:
            status, body = await fetch(url)
            if status == 200:
                return True
            if self._over.done() or self._stopping:
                return False
            await self._check_starts()
            self._progress.detail(_missing(body))
            await asyncio.sleep(_POLL_S)

    async def _check_starts(self) -> None:
        try:
            found = await processes(self._folder.supervisor_socket)
        except Unavailable:
            return  # it is just starting; should it not, `_ended` gives up
        for process in found:
            if process.kind != "engine" and process.streak >= _GIVE_UP_STREAK and process.last_exit.startswith("exit"):
                raise Unavailable(_why(process, self._logs))

    # -- the end -----------------------------------------------------------------------------------------------------

    def _signalled(self) -> None:
        if self._stopping:
            self._progress.note("stopping at once")
            self._kill(KILLED_EXIT)
        else:
            self._progress.note("draining: what is being answered is finished first (once more: stop at once)")
            self.stop()

    async def _end_rest(self) -> None:
        """Ends what a supervisor left that was killed while it drained."""
        handles = [h for h in map(self._records.handle, self._others()) if h is not None]
        for handle in handles:
            handle.send(signal.SIGTERM)
        while handles and not self._over.done():
            await asyncio.sleep(_POLL_S)
            handles = _living(handles)
        self._forget()
        self._finish(0)

    def _kill(self, status: int) -> None:
        if self._over.done():
            return
        if self._supervisor is not None:
            self._supervisor.send(signal.SIGKILL)
        for record in self._others():
            handle = self._records.handle(record)
            if handle is not None:
                handle.send(signal.SIGKILL)
                handle.close()
        self._forget()
        self._finish(status)

    def _others(self) -> list[RunRecord]:
        return [record for record in self._records.all() if record.spec.kind != "launcher"]

    def _forget(self) -> None:
        for record in self._others():
            self._records.remove(record.spec.name)

    def _finish(self, status: int) -> None:
        self._records.remove("launcher")
        if not self._over.done():
            self._over.set_result(status)

    def _finish_with(self, error: PenstockError) -> None:
        self._records.remove("launcher")
        if not self._over.done():
            self._over.set_exception(error)

    def _run(self, job: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)


def _living(handles: list[Handle]) -> list[Handle]:
    living = []
    for handle in handles:
        if start_ticks(handle.pid) == handle.started and not is_zombie(handle.pid):
            living.append(handle)
        else:
            handle.close()
    return living


def _missing(body: bytes) -> str:
    """What a process that is not ready says it waits for."""
    try:
        told = msgspec.json.decode(body, type=_NotReady)
    except msgspec.DecodeError:
        return ""
    return told.missing[0] if told.missing else told.status


def _why(process: ProcessStatus, logs: Logs) -> str:
    return f"{process.name} does not start ({process.last_exit}). Its log: {logs.path(process.name)}"


def _become_subreaper() -> None:
    """Orphans of a killed supervisor become our children, so that they stay under this process and are collected."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
