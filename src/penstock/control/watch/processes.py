"""Restarts as events of the audit trail: what the supervisor keeps running is looked at, and what it had to start again is written down once."""

import asyncio
import logging
from collections.abc import Iterable

from penstock.control.context import SYSTEM, Control
from penstock.control.leases import Lease
from penstock.control.watch.state_events import newest_action
from penstock.core.errors import PenstockError
from penstock.runtime.port import ProcessList, RunningProcess

_LOG = logging.getLogger("penstock.control")
EVERY_S = 2.0
RESTARTED = "process.restart"


class Restarts:
    """Looks at the processes of one machine. Run it as a task.

    Several starts between two looks are one event, whose `restarts` says how many there have been since the first. The supervisor keeps that
    number over its own death; all begin with 0 when the installation is started anew.
    """

    def __init__(self, control: Control, processes: ProcessList) -> None:
        self._control = control
        self._processes = processes
        self._lease = Lease(control, "processes")
        self._known: dict[str, tuple[int, float]] = {}
        self.failures = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except PenstockError as error:
                self.failures += 1
                _LOG.debug("restarts: %s", error.message)
            await asyncio.sleep(EVERY_S)

    async def look(self) -> int:
        """Write down what was restarted since the last look, if this process leads; how many.

        Raises:
            Unavailable: if the supervisor or the database cannot be reached.
        """
        seen = await self._processes.processes()
        fresh = [one for one in seen if one.restarts and self._known.get(one.name) != (one.restarts, one.since)]
        if not fresh:
            written = 0
        elif await self._lease.held():
            written = await self._write(fresh)
        else:
            return 0
        self._known = {one.name: (one.restarts, one.since) for one in seen}
        return written

    async def _write(self, fresh: Iterable[RunningProcess]) -> int:
        written = 0
        async with self._control.deed(SYSTEM) as change:
            for one in fresh:
                last = await newest_action(change, one.name, (RESTARTED,))
                if last is not None and (last.detail["restarts"], last.detail["since"]) == (one.restarts, one.since):
                    continue
                await change.audit(
                    RESTARTED, one.name, kind=one.kind, restarts=one.restarts, since=one.since, last_exit=one.last_exit
                )
                written += 1
        return written
