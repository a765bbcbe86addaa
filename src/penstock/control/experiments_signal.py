"""Between ingest and the evaluator: which experiments have new data, and whether all of it is heard."""

import asyncio
from collections.abc import Collection

from penstock.control.canary_watch import Watch


class Signal:
    """Names collect until they are taken; whoever waits is woken. `watch` knows whose journals are read."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch or Watch()
        self._names: set[str] = set()
        self._event = asyncio.Event()

    def changed(self, names: Collection[str]) -> None:
        """These have new data."""
        if names:
            self._names.update(names)
            self._event.set()

    async def wait(self, timeout_s: float) -> set[str]:
        """The names since the last call, as soon as there are any; empty after `timeout_s`."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return set()
        self._event.clear()
        names, self._names = self._names, set()
        return names
