"""Replicas that gateways leave out, as events of the audit trail: `replica.out` when the first worker does, `replica.back` when none does any more."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from sqlalchemy import func, select

from penstock.control.context import SYSTEM, Control
from penstock.control.leases import Lease
from penstock.core.errors import PenstockError
from penstock.core.reports import Report
from penstock.store.schema import audit_events

_LOG = logging.getLogger("penstock.control")
EVERY_S = 2.0
HEARD_S = 10.0  # a worker that has told nothing for so long is not counted
OUT, BACK = "replica.out", "replica.back"


class Rotation:
    """Reads what workers report. Run it as a task.

    For the first `HEARD_S` seconds nothing is written: not all workers have told a control that has just started.
    """

    def __init__(self, control: Control, reports: Callable[[], Iterable[Report]]) -> None:
        self._control = control
        self._reports = reports
        self._lease = Lease(control, "rotation")
        self._since = control.clock()
        self._known: frozenset[str] | None = None
        self.failures = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look()
            except PenstockError as error:
                self.failures += 1
                _LOG.debug("rotation: %s", error.message)

    async def look(self) -> int:
        """Write down which replicas have gone out or come back since the last look, if this process leads; how many.

        Raises:
            Unavailable: if the database cannot be reached.
        """
        now = self._control.clock()
        if now < self._since + HEARD_S:
            return 0
        heard = [one for one in self._reports() if one.at > now - HEARD_S]
        out = frozenset(replica for one in heard for replica in one.out)
        if out == self._known or not await self._lease.held():
            return 0
        written = 0
        async with self._control.deed(SYSTEM) as change:
            newest = (
                select(func.max(audit_events.c.sequence))
                .where(audit_events.c.action.in_((OUT, BACK)))
                .group_by(audit_events.c.subject)
            )
            statement = select(audit_events.c.subject, audit_events.c.action).where(audit_events.c.sequence.in_(newest))
            was = {row.subject for row in await change.connection.execute(statement) if row.action == OUT}
            for replica in sorted(out ^ was):
                workers = ", ".join(sorted(one.worker for one in heard if replica in one.out))
                pool = replica.partition("/")[0]
                if replica in out:
                    await change.audit(OUT, replica, pool=pool, worker=workers)
                else:
                    await change.audit(BACK, replica, pool=pool)
                written += 1
        self._known = out
        return written
