"""Between ingest and the evaluator: which experiments have new data, and whether all of it is heard."""

import asyncio
from collections.abc import Collection

from penstock.control.deploy.canary_watch import Watch


class Signal:
    """Names collect until they are taken; whoever waits is woken. `watch` knows whose journals are read."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch or Watch()
        self._names: set[str] = set()
        self._event = asyncio.Event()
        self._tripped: set[str] = set()
        self._alarm = asyncio.Event()

    def changed(self, names: Collection[str], tripped: Collection[str] = ()) -> None:
        """These have new data; of those in `tripped` a guardrail has tripped, which waits for nobody's round."""
        if names:
            self._names.update(names)
            self._event.set()
        if tripped:
            self._tripped.update(tripped)
            self._alarm.set()

    async def alarm(self) -> set[str]:
        """The names of which a guardrail has tripped since the last call, as soon as there are any."""
        await self._alarm.wait()
        self._alarm.clear()
        names, self._tripped = self._tripped, set()
        return names

    async def wait(self, timeout_s: float) -> set[str]:
        """The names since the last call, as soon as there are any; empty after `timeout_s`."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return set()
        self._event.clear()
        names, self._names = self._names, set()
        return names
