"""Keeps a set of processes running: starts or adopts each, sees it end by its pidfd, starts it again, drains it when told."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping

from penstock.supervisor.health import wait_healthy
from penstock.supervisor.logs import Logs
from penstock.supervisor.procfs import Handle, pids_with, state_of
from penstock.supervisor.records import Records
from penstock.supervisor.restarts import FAILED_STREAK, next_streak, restart_delay
from penstock.supervisor.spawn import spawn
from penstock.supervisor.values import ProcessSpec, ProcessStatus, RunRecord, State
from penstock.supervisor.vigil import until_silent

_log = logging.getLogger("penstock.supervisor")
_ADOPTED_S = 180.0  # for a process that was there before we came, and may have been starting, to say that it lives


class _Kept:
    """One process that is kept running."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.state: State = "starting"
        self.handle: Handle | None = None
        self.restarts = 0
        self.streak = 0
        self.since = 0.0
        self.born = 0.0  # monotonic
        self.log_start = 0
        self.last_exit = ""
        self.timer: asyncio.TimerHandle | None = None
        self.probe: asyncio.Task[None] | None = None
        self.silent_s = 0.0  # for so long it had said nothing when it was killed
        self.ended = asyncio.Event()

    def status(self) -> ProcessStatus:
        return ProcessStatus(
            name=self.spec.name,
            kind=self.spec.kind,
            state=self.state,
            pid=self.handle.pid if self.handle is not None else 0,
            port=self.spec.port,
            url=self.spec.url,
            restarts=self.restarts,
            since=self.since,
            streak=self.streak,
            last_exit=self.last_exit,
        )


class Keeper:
    """Processes of one data folder.

    Args:
        records: where they are remembered for the next supervisor.
        logs: where they write.
        environment: what they are started with.
        hang_s: a process that says nothing so long, or for as long as it may drain, is killed and started again; 0: none is.
    """

    def __init__(self, records: Records, logs: Logs, environment: Mapping[str, str], *, hang_s: float = 0.0) -> None:
        self._records = records
        self._logs = logs
        self._environment = dict(environment)
        self._keyless = {name: value for name, value in environment.items() if not name.startswith("PENSTOCK_KEYS_")}
        self._hang_s = hang_s
        self._kept: dict[str, _Kept] = {}
        self._loop = asyncio.get_running_loop()

    def statuses(self) -> list[ProcessStatus]:
        """All processes that are kept."""
        return [kept.status() for kept in self._kept.values()]

    def status(self, name: str) -> ProcessStatus | None:
        """One of them; None if it is not kept."""
        kept = self._kept.get(name)
        return None if kept is None else kept.status()

    def spec(self, name: str) -> ProcessSpec | None:
        """What the process of that name should be; None if it is not kept."""
        kept = self._kept.get(name)
        return None if kept is None else kept.spec

    def keep(self, spec: ProcessSpec) -> ProcessStatus:
        """Sees to it that `spec` runs from now on: adopts it if it lives, starts it if not. A second time is no second start."""
        kept = self._kept.get(spec.name)
        if kept is None:
            kept = self._kept[spec.name] = _Kept(spec)
            if not self._adopt(kept):
                self._start(kept)
        return kept.status()

    async def release(self, name: str, grace_s: float | None = None) -> None:
        """Ends the process with SIGTERM, after `grace_s` seconds with SIGKILL, and forgets it. Not there is no error."""
        kept = self._kept.get(name)
        if kept is None:
            return
        first = kept.state != "draining"
        kept.state = "draining"
        if kept.timer is not None:
            kept.timer.cancel()
        if kept.probe is not None:
            kept.probe.cancel()
        if kept.handle is None:
            kept.ended.set()
        elif first:
            kept.handle.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(kept.spec.grace_s if grace_s is None else grace_s):
                await kept.ended.wait()
        except TimeoutError:
            _log.warning("%s did not end in time and is killed", name)
            if kept.handle is not None:
                kept.handle.send(signal.SIGKILL)
            await kept.ended.wait()
        if self._kept.get(name) is kept:
            del self._kept[name]
            self._records.remove(name)

    def close(self) -> None:
        """Lets go of all processes without touching them: they live on and can be adopted."""
        for kept in self._kept.values():
            for job in (kept.timer, kept.probe):
                if job is not None:
                    job.cancel()
            if kept.handle is not None:
                self._loop.remove_reader(kept.handle.fd)
                kept.handle.close()
        self._kept.clear()

    # -- one process -------------------------------------------------------------------------------------------------

    def _adopt(self, kept: _Kept) -> bool:
        record = self._records.read(kept.spec.name)
        if record is None:
            return False
        kept.restarts = record.restarts
        kept.since = record.at
        handle = self._records.handle(record)
        if handle is None and record.pid == 0:
            # The last supervisor was killed between starting it and writing down its pid.
            handle = next(filter(None, map(Handle.open, pids_with(record.spec.argv))), None)
        if handle is None:
            if record.pid:
                kept.restarts += 1
                kept.last_exit = "ended while no supervisor watched"
            return False
        if record.spec != kept.spec:
            # Started with other settings: it drains by itself while its successor starts.
            _log.info("%s (pid %d) runs with other settings and is replaced", kept.spec.name, handle.pid)
            handle.send(signal.SIGTERM)
            handle.close()
            return False
        _log.info("%s (pid %d) lives and is adopted", kept.spec.name, handle.pid)
        kept.born = time.monotonic()
        self._hold(kept, handle, adopted=True)
        if record.pid == 0:
            self._write(kept)
        return True

    def _start(self, kept: _Kept) -> None:
        spec = kept.spec
        kept.timer = None
        kept.born = time.monotonic()
        kept.since = time.time()
        kept.log_start = self._logs.size(spec.name)
        try:
            # Written before and after, so that a supervisor killed in between leaves a trace of what it started.
            self._records.write(RunRecord(spec=spec, restarts=kept.restarts, at=kept.since))
            log = self._logs.open(spec.name)
            try:
                handle = spawn(
                    spec.argv, self._keyless if spec.kind in {"engine", "examiner"} else self._environment, log
                )
            finally:
                os.close(log)
        except OSError as error:
            self._again(kept, f"cannot be started: {error.strerror or error}")
            return
        self._hold(kept, handle)
        self._write(kept)
        _log.info("%s started with pid %d", spec.name, handle.pid)

    def _hold(self, kept: _Kept, handle: Handle, *, adopted: bool = False) -> None:
        kept.handle = handle
        self._loop.add_reader(handle.fd, self._ended, kept)
        kept.state = "starting" if kept.spec.url else "running"
        if kept.spec.asked:
            kept.probe = self._loop.create_task(self._running(kept, adopted=adopted))

    def _write(self, kept: _Kept) -> None:
        handle = kept.handle
        if handle is None:
            return
        record = RunRecord(
            spec=kept.spec, pid=handle.pid, started=handle.started, restarts=kept.restarts, at=kept.since
        )
        try:
            self._records.write(record)
        except OSError as error:
            # The record without a pid is there: a successor finds the process by its command line.
            _log.warning("the record of %s cannot be written: %s", kept.spec.name, error)

    async def _running(self, kept: _Kept, *, adopted: bool) -> None:
        """Tell when it has started; from then on see that it lives. Starting may take what it takes, but for one that had begun before we came."""
        try:
            async with asyncio.timeout(_ADOPTED_S if adopted and self._hang_s else None):
                await wait_healthy(kept.spec.asked)
        except TimeoutError:
            self._end_silent(kept, _ADOPTED_S)
            return
        if kept.state in {"starting", "failed"}:
            kept.state = "running"
        if self._hang_s:
            bound = max(self._hang_s, kept.spec.grace_s)
            await until_silent(kept.spec.asked, bound)
            self._end_silent(kept, bound)

    def _end_silent(self, kept: _Kept, seconds: float) -> None:
        handle = kept.handle
        if handle is None or kept.state not in {"starting", "running", "failed"}:
            return
        kept.silent_s = seconds
        how = state_of(handle.pid)
        _log.error(
            "%s (pid %d, %s) has said nothing for %.0f s and is killed", kept.spec.name, handle.pid, how, seconds
        )
        handle.send(signal.SIGKILL)

    def _ended(self, kept: _Kept) -> None:
        handle = kept.handle
        if handle is None:
            return
        self._loop.remove_reader(handle.fd)
        how = handle.collect()
        handle.close()
        kept.handle = None
        if kept.silent_s:
            how = f"said nothing for {kept.silent_s:.0f} s, and was killed"
            kept.silent_s = 0.0
        if kept.probe is not None:
            kept.probe.cancel()
            kept.probe = None
        if kept.state == "draining":
            kept.ended.set()
            return
        sentence = self._logs.last_line(kept.spec.name, kept.log_start) if how.startswith("exit") else ""
        kept.restarts += 1
        self._again(kept, f"{how}: {sentence}" if sentence else how)

    def _again(self, kept: _Kept, how: str) -> None:
        kept.last_exit = how
        kept.streak = next_streak(kept.streak, time.monotonic() - kept.born)
        delay = restart_delay(kept.streak)
        kept.state = "failed" if kept.streak >= FAILED_STREAK else "restarting"
        _log.warning("%s: %s; started again in %.2f s (start %d)", kept.spec.name, how, delay, kept.restarts)
        if delay:
            kept.timer = self._loop.call_later(delay, self._start, kept)
        else:
            kept.timer = self._loop.call_soon(self._start, kept)  # type: ignore[assignment]
