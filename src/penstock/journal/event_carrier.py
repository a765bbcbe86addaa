"""Changes of state on their way from control to a sink of documents: at least once, in order, from where the last carrier got.

Each step is: ask control for what comes after the saved sequence, hand it to the sink, save the sequence.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from penstock.core.errors import PenstockError
from penstock.core.state_events import StateEvents
from penstock.journal.control_client import ControlClient
from penstock.journal.ecs import Document, event_document
from penstock.journal.format import Position
from penstock.journal.offsets import load_offset, save_offset
from penstock.journal.refusals import Tally
from penstock.journal.ship import LONGEST_PAUSE_S, SHORTEST_PAUSE_S, Counts

_log = logging.getLogger("penstock.ship")
EVERY_S = 1.0
BATCH = 500
_OFFSET = "@events"  # beside the offsets in workers' journals; no worker is called so


class DocumentSink(Protocol):
    """A sink that takes documents, whatever they are made of."""

    tally: Tally

    @property
    def name(self) -> str:
        """The reader's name."""

    async def positions(self) -> dict[str, Position] | None:
        """Makes ready what documents need there; see `ship.Sink`."""

    async def index(self, documents: Sequence[Document]) -> None:
        """Take `documents`; when this returns, they are safe there.

        Raises:
            PenstockError: if it did not take them all.
            OSError: if what it will never take cannot be written down, or nobody reads any more.
        """


class ControlEvents:
    """Control's changes of state."""

    def __init__(self, control: ControlClient) -> None:
        self._control = control

    async def after(self, sequence: int) -> StateEvents:
        """The next events after `sequence`, at most `BATCH`.

        Raises:
            PenstockError: if control does not tell.
        """
        return await self._control.read(f"/internal/v1/events?after={sequence}&limit={BATCH}", StateEvents, "events")


class EventCarrier:
    """Carries events from `source` to `sink`; offsets below `offsets` (DATA/ship)."""

    def __init__(self, sink: DocumentSink, source: ControlEvents, offsets: Path, *, poll_s: float = EVERY_S) -> None:
        self.counts = Counts()
        self.problem = ""
        self.behind = 0  # events that control has and the sink has not, at the last look
        self._sink = sink
        self._source = source
        self._offsets = offsets
        self._poll_s = poll_s
        self._ready = False
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        """The sink's, and what is carried there."""
        return f"{self._sink.name}-events"

    def stop(self) -> None:
        """Let `run` end after what it is doing."""
        self._stopping.set()

    async def run(self) -> None:
        """Carry until stopped. What fails is tried again after a growing pause."""
        pause = SHORTEST_PAUSE_S
        while not self._stopping.is_set():
            try:
                moved = await self.step()
            except (PenstockError, OSError) as error:
                self.counts.failures += 1
                if not self.problem:
                    _log.warning("%s: %s", self.name, error)
                self.problem = str(error)
                self._ready = False
                await self._wait(max(pause, getattr(error, "retry_after", None) or 0.0))
                pause = min(LONGEST_PAUSE_S, 2 * pause)
                continue
            if self.problem:
                _log.info("%s: goes on", self.name)
            self.problem = ""
            pause = SHORTEST_PAUSE_S
            if not moved:
                await self._wait(self._poll_s)

    async def step(self) -> bool:
        """Carry one batch; whether there was any.

        Raises:
            PenstockError: if control is away, or the sink did not take it; nothing is lost.
            OSError: if the sequence could not be saved; then the batch goes again.
        """
        if not self._ready:
            await self._sink.positions()
            self._ready = True
        saved = load_offset(self._offsets, self._sink.name, _OFFSET)
        sequence = saved.offset if saved is not None else 0
        told = await self._source.after(sequence)
        if told.last < sequence:  # the database was put back: what it has goes again, and is known by its ids
            told = await self._source.after(0)
        self.behind = max(0, told.last - sequence)
        if not told.events:
            return False
        await self._sink.index([event_document(one) for one in told.events])
        newest = told.events[-1].sequence
        save_offset(self._offsets, self._sink.name, _OFFSET, Position(0, newest))
        self.counts.records += len(told.events)
        self.behind = max(0, told.last - newest)
        return True

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
