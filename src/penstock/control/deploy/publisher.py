"""Publishes Snapshots: compiled when something changed, handed to gateways that wait for them, whole or as a delta."""

import asyncio
import logging
from collections import OrderedDict

import msgspec
from sqlalchemy import select

from penstock.control.context import Control
from penstock.control.deploy.snapshot import compile_snapshot
from penstock.control.deploy.state import ActiveExperiments, State, load_state, no_experiments
from penstock.core.checksum import advanced, entries_checksum, result_checksum
from penstock.core.errors import PenstockError
from penstock.core.reports import Report
from penstock.core.snapshot import Snapshot, SnapshotDelta, difference
from penstock.store.schema import sequences

_LOG = logging.getLogger("penstock.control")
_KEPT = 64  # generations that a delta can start from
_MOST_REPORTS = 1000  # beyond it workers that are gone are forgotten
_FORGOTTEN_S = 300.0
_POLL_S = 0.2  # how soon a change by another control process is seen


class Publisher:
    """The newest Snapshot, and those who wait for a newer one.

    Usage: `run` as a task; `newer` answers gateways. Each commit on this process wakes it at once; commits of other control processes
    are seen within 200 ms.
    """

    def __init__(self, control: Control, *, active_experiments: ActiveExperiments = no_experiments) -> None:
        self._control = control
        self._active_experiments = active_experiments
        self._recent: OrderedDict[int, Snapshot] = OrderedDict()
        self._deltas: dict[int, SnapshotDelta] = {}  # to the newest, by where they start
        self._sum = 0  # of the newest's entries
        self._condition = asyncio.Condition()
        self._dirty = asyncio.Event()
        self._stopped = False
        self._stopping: asyncio.Task[None] | None = None
        self.failures = 0
        self.reports: dict[tuple[str, str], Report] = {}  # by worker, and journal or host
        control.listeners.append(self._changed)

    @property
    def current(self) -> Snapshot | None:
        """The newest Snapshot; None before the first."""
        return next(reversed(self._recent.values())) if self._recent else None

    def _changed(self, _generation: int) -> None:
        self._dirty.set()

    async def state(self) -> State:
        """What the database says now."""
        async with self._control.database.read() as connection:
            return await load_state(
                connection,
                environment=self._control.settings.control.environment,
                active_experiments=self._active_experiments,
                service_token=self._control.service_token,
            )

    async def _generation(self) -> int:
        statement = select(sequences.c.value).where(sequences.c.name == "generation")
        async with self._control.database.read() as connection:
            return (await connection.execute(statement)).scalar_one_or_none() or 0

    async def refresh(self) -> Snapshot:
        """Compile what the database says now, publish it if it is new, and give it.

        Raises:
            Unavailable: if the database cannot be read.
        """
        state = await self.state()
        async with self._condition:
            current = self.current
            if current is not None and state.generation <= current.generation:
                return current
            snapshot = compile_snapshot(state, self._control.clock())
            self._deltas = {}
            if current is None:
                self._sum = entries_checksum(snapshot)
            else:
                step = difference(current, snapshot)
                self._sum = advanced(self._sum, current, step)
                self._deltas[current.generation] = self._signed(step, snapshot)
            self._recent[snapshot.generation] = snapshot
            while len(self._recent) > _KEPT:
                self._recent.popitem(last=False)
            self._condition.notify_all()
            return snapshot

    async def newer(self, after: int, wait_s: float) -> Snapshot | SnapshotDelta | None:
        """What is newer than generation `after`: a delta if `after` is remembered, else the whole; None if nothing came within `wait_s`.

        A gateway that claims a generation that the database does not have (its database was another one) gets the whole Snapshot.
        """
        try:
            async with asyncio.timeout(wait_s), self._condition:
                await self._condition.wait_for(
                    lambda: self._stopped or (self.current is not None and self.current.generation != after)
                )
        except TimeoutError:
            pass
        current = self.current
        if current is not None and current.generation < after and not self._stopped:
            # Another control process is ahead of this one: to go back, were it for a moment, would undo revocations.
            current = await self.refresh()
        if current is None or current.generation == after:
            return None
        base = self._recent.get(after)
        if base is None:
            return current
        delta = self._deltas.get(after)
        if delta is None:
            delta = self._deltas[after] = self._signed(difference(base, current), current)
        return delta

    def _signed(self, delta: SnapshotDelta, result: Snapshot) -> SnapshotDelta:
        """The delta with the checksum of what it leads to."""
        checksum = result_checksum(self._sum, result.generation, result.environment)
        return msgspec.structs.replace(delta, checksum=checksum)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            try:
                if self.current is None or await self._generation() > self.current.generation:
                    await self.refresh()
                self.failures = 0
            except PenstockError as error:
                self.failures += 1
                _LOG.warning("the Snapshot could not be compiled: %s", error.message)
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._dirty.wait()
            except TimeoutError:
                continue
            self._dirty.clear()

    def stop(self) -> None:
        """Let go of all who wait, now and from now on: the process is about to end."""
        self._stopped = True
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._wake(), name="publisher stop")

    async def _wake(self) -> None:
        async with self._condition:
            self._condition.notify_all()

    def report(self, report: Report) -> None:
        """Keep what a gateway worker said; `at` is set to now."""
        now = self._control.clock()
        self.reports[report.worker, report.journal or report.host] = msgspec.structs.replace(report, at=now)
        if len(self.reports) > _MOST_REPORTS:
            for who in [who for who, one in self.reports.items() if one.at <= now - _FORGOTTEN_S]:
                del self.reports[who]
