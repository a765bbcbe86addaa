"""The loop that keeps storage: older whole files taken over, deltas made, what is not needed swept."""

import asyncio
import logging

from penstock.control.context import Control
from penstock.control.leases import Lease
from penstock.control.storage.sweep import sweep
from penstock.control.storage.thin import thin_next
from penstock.core.errors import Damaged, PenstockError

_LOG = logging.getLogger("penstock.control")
_IDLE_S = 2.0
_SWEEP_S = 3600.0
GRACE_S = 86400.0


class Storekeeper:
    """Run it as a task; of several control processes one does the work."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._lease = Lease(control, "storage")
        self._broken: set[str] = set()
        self._adopted = False  # nothing is ever kept whole anew

    async def run(self) -> None:
        """Keep storage until cancelled; what fails is told, and tried again."""
        swept_at = self._control.clock()
        while True:
            try:
                busy = False
                if await self._lease.held():
                    busy = await self.adopt_next() or await thin_next(self._control)
                    if not busy and self._control.clock() - swept_at > _SWEEP_S:
                        swept_at = self._control.clock()
                        found = await sweep(self._control, grace_s=GRACE_S)
                        if found.freed:
                            _LOG.info("%d bytes that nothing needed were swept away", found.freed)
            except PenstockError as error:
                _LOG.warning("storage: %s", error.message)
                busy = False
            await asyncio.sleep(0 if busy else _IDLE_S)

    async def adopt_next(self) -> bool:
        """Take over one file that is kept whole, block by block; whether there was one.

        Raises:
            Unavailable: if the store or the database fails.
        """
        if self._adopted:
            return False
        async for whole in self._control.blobs.whole.list():
            if whole.digest in self._broken:
                continue
            if await self._control.blobs.file(whole.digest) is None:
                source = self._control.blobs.whole.stream(whole.digest)
                try:
                    await self._control.blobs.take_over(whole.digest, source, whole.size)
                except Damaged as error:
                    self._broken.add(whole.digest)  # it stays as it is, for fsck to tell
                    _LOG.warning("storage: %s", error.message)
                    continue
            await self._control.blobs.whole.delete(whole.digest)
            return True
        self._adopted = True
        return False
