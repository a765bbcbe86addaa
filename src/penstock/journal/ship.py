"""The shipper: passes the journals of all workers on to sinks, each sink at its own pace, at least once, in order.

A sink that is away delays, and loses nothing: the journal on disk is the queue. Each step is: read a batch, send it, save the position.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from penstock.core.errors import Damaged, PenstockError, UpstreamFailed
from penstock.journal.control_client import ControlClient
from penstock.journal.format import FRAME_HEAD_BYTES, Position, decode_payload
from penstock.journal.names import journal_name
from penstock.journal.offsets import load_offset, save_offset
from penstock.journal.reader import Batch, JournalReader
from penstock.journal.refusals import Tally
from penstock.journal.segments import list_segments

_log = logging.getLogger("penstock.ship")

SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
HEARD_S = 1.0  # how often it is told that all has been passed on
Heard = Callable[[Sequence[str], float], Awaitable[None]]


class OutOfPlace(Exception):
    """The sink is at another position than the batch starts from."""

    def __init__(self, position: Position) -> None:
        super().__init__(f"the sink is at {position.segment}:{position.offset}")
        self.position = position


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """A position as control writes it."""

    segment: int
    offset: int


class Sink(Protocol):
    """Where one reader's batches go. A sink has one reader, and its failures are no other reader's."""

    tally: Tally

    @property
    def name(self) -> str:
        """The reader's name: a folder for its offsets, a label of its metrics."""

    async def positions(self) -> dict[str, Position] | None:
        """Where each worker's journal goes on, if the sink keeps count itself; None: the saved offsets count.

        Raises:
            PenstockError: if the sink is away.
        """

    async def send(self, worker: str, batch: Batch) -> None:
        """Hand over a batch; when this returns, it is safe there.

        Raises:
            OutOfPlace: if the sink wants another position.
            PenstockError: if it did not take the batch, or may not have; `retry_after` says when to ask again, if the sink did.
            OSError: if what it will never take cannot be written down.
        """

    async def close(self) -> None:
        """Let go of it."""


class ControlSink:
    """Control's ingest, which commits a batch, its position and the statistics in one transaction.

    It hears of journals of several hosts, and knows them by their names (`journal.names`).
    """

    def __init__(self, url: str, token: str, *, journal: Path, offsets: Path) -> None:
        """Control at `url`; `token` is the service token, `journal` holds the workers' folders, `offsets` the saved positions."""
        self.tally = Tally()
        self._journal = journal
        self._offsets = offsets
        self._client = ControlClient(url, token, connections=4)

    @property
    def name(self) -> str:
        """`control`."""
        return "control"

    async def positions(self) -> dict[str, Position] | None:
        """What control has committed."""
        places = await self._client.read("/internal/v1/ingest/offsets", dict[str, _Place], "how far it has read")
        found: dict[str, Position] = {}
        for worker in workers_in(self._journal):
            name = journal_name(self._journal / worker)
            place = places.get(name)
            if place is not None:
                found[worker] = Position(place.segment, place.offset)
            elif worker in places:
                # Known by the worker's name alone, as journals were before: whose of all hosts, only we know.
                saved = load_offset(self._offsets, self.name, worker, name)
                if saved is not None:
                    found[worker] = saved
        return found

    async def send(self, worker: str, batch: Batch) -> None:
        """POST it."""
        source = journal_name(self._journal / worker)
        path = f"/internal/v1/ingest?source={source}&segment={batch.segment}&start={batch.start}&end={batch.end}"
        status, body = await self._client.ask(b"POST", path, batch.body)
        if status == 409:
            try:
                place = msgspec.json.decode(body, type=_Place)
            except msgspec.DecodeError as error:
                raise UpstreamFailed(f"Control's answer names no position: {error}.") from None
            raise OutOfPlace(Position(place.segment, place.offset))
        if status != 200:
            raise UpstreamFailed(f"Control answered {status} to a batch: {body[:200]!r}.")

    async def heard(self, workers: Sequence[str], behind_s: float) -> None:
        """Tell control that all that `workers` had recorded `behind_s` seconds ago has been passed on.

        Raises:
            PenstockError: if control did not take it.
        """
        names = [journal_name(self._journal / worker) for worker in workers]
        query = urlencode({"behind": f"{behind_s:.3f}", "journal": names}, doseq=True)
        status, body = await self._client.ask(b"POST", f"/internal/v1/ingest/heard?{query}")
        if status != 200:
            raise UpstreamFailed(f"Control answered {status} when told how far it has heard: {body[:200]!r}.")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def workers_in(journal: Path, known: Collection[str] = ()) -> list[str]:
    """The workers that have a journal below `journal`, and those of `known` whose folder is there."""
    if not journal.is_dir():
        return []
    return sorted(p.name for p in journal.iterdir() if p.name in known or list_segments(p))


class Counts:
    """What one reader has done since the process started."""

    __slots__ = ("damaged", "failures", "records")

    def __init__(self) -> None:
        self.records = 0
        self.failures = 0
        self.damaged = 0


class Shipper:
    """One sink's reader over all workers' journals below `journal` (DATA/journal), offsets below `offsets` (DATA/ship).

    `heard` is told once a second whose journals have been passed on up to their ends, and how many seconds ago these were there.
    """

    def __init__(
        self, sink: Sink, journal: Path, offsets: Path, *, poll_s: float = 0.1, heard: Heard | None = None
    ) -> None:
        self.counts = Counts()
        self.problem = ""  # what is wrong now; "" if nothing is
        self._sink = sink
        self._journal = journal
        self._offsets = offsets
        self._poll_s = poll_s
        self._readers: dict[str, JournalReader] = {}
        self._committed: dict[str, Position] | None = None
        self._asked = False
        self._heard = heard
        self._told = -HEARD_S
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        """The sink's."""
        return self._sink.name

    @property
    def tally(self) -> Tally:
        """The sink's."""
        return self._sink.tally

    def stop(self) -> None:
        """Let `run` end after what it is doing."""
        self._stopping.set()

    def lag(self) -> int:
        """Bytes that have not been passed on."""
        total = 0
        for worker in self._workers():
            reader = self._readers.get(worker)
            if reader is None:
                reader = JournalReader(self._journal / worker, self._saved(worker))
            total += reader.lag()
        return total

    async def run(self) -> None:
        """Pass on what there is and what comes, until stopped. A sink that fails is asked again after a growing pause."""
        pause = SHORTEST_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                moved = await self.step()
                if self._heard is not None and began - self._told >= HEARD_S:
                    await self._tell(self._heard, began)
            except Exception as error:  # noqa: BLE001 - one reader's unforeseen failure must not end the others
                known = isinstance(error, PenstockError | OSError)
                self.counts.failures += 1
                if not self.problem:
                    _log.warning("%s: %s", self.name, error, exc_info=None if known else error)
                self.problem = str(error) if known else repr(error)
                self._asked = False
                await self._wait(max(pause, getattr(error, "retry_after", None) or 0.0))
                pause = min(LONGEST_PAUSE_S, 2 * pause)
                continue
            if self.problem:
                _log.info("%s: goes on", self.name)
            self.problem = ""
            pause = SHORTEST_PAUSE_S
            if not moved or self._at_ends():  # what comes one by one is passed on together
                await self._wait(self._poll_s)

    async def step(self) -> bool:
        """One batch of each worker; whether there was any.

        Raises:
            PenstockError: if the sink did not take one; nothing is lost, and the other workers' were offered all the same.
            OSError: if a position could not be saved.
        """
        if not self._asked:
            self._committed = await self._sink.positions()
            self.close()
            self._readers.clear()
            self._asked = True
        moved = False
        failure: PenstockError | None = None
        for worker in self._workers():
            try:
                moved = await self._step(worker, self._reader(worker)) or moved
            except PenstockError as error:
                failure = error
        if failure is not None:
            raise failure
        return moved

    async def _tell(self, heard: Heard, since: float) -> None:
        """Say so if the step that began at `since` went to the ends of all journals."""
        if self._at_ends():
            await heard(sorted(self._readers), time.monotonic() - since)
            self._told = since

    def _at_ends(self) -> bool:
        return all(reader.at_end for reader in self._readers.values())

    def close(self) -> None:
        """Let go of the files."""
        for reader in self._readers.values():
            reader.close()

    async def _step(self, worker: str, reader: JournalReader) -> bool:
        before = reader.position
        batch = reader.read()
        if batch is None:
            segments = list_segments(self._journal / worker)
            if segments and before.segment > segments[-1]:
                raise Damaged(
                    f"{self.name} has read {worker}'s journal up to segment {before.segment}, but it ends with {segments[-1]}:"
                    " it has been put back or replaced."
                )
            return False
        readable = self._readable(batch)
        try:
            await self._sink.send(worker, readable)
        except OutOfPlace as elsewhere:
            reader.seek(elsewhere.position)
            if elsewhere.position == Position(batch.segment, batch.start):
                raise UpstreamFailed(f"{self.name} refuses {worker}'s journal at its own position {before}.") from None
            return True
        except BaseException:
            reader.seek(before)
            raise
        self.counts.records += len(readable.frames)
        self.counts.damaged += (batch.end - batch.start) - sum(len(frame) for _, frame in readable.frames)
        save_offset(self._offsets, self.name, worker, reader.position, journal_name(self._journal / worker))
        return True

    def _workers(self) -> list[str]:
        return workers_in(self._journal, self._readers)

    def _saved(self, worker: str) -> Position | None:
        return load_offset(self._offsets, self.name, worker, journal_name(self._journal / worker))

    def _reader(self, worker: str) -> JournalReader:
        reader = self._readers.get(worker)
        if reader is None:
            start = self._saved(worker) if self._committed is None else self._committed.get(worker)
            reader = self._readers[worker] = JournalReader(self._journal / worker, start)
        return reader

    @staticmethod
    def _readable(batch: Batch) -> Batch:
        """Without frames that hold no record that this version knows: a sink would refuse all for one."""
        frames: list[tuple[int, bytes]] = []
        for offset, frame in batch.frames:
            try:
                decode_payload(memoryview(frame)[FRAME_HEAD_BYTES:])
            except Damaged:
                continue
            frames.append((offset, frame))
        if len(frames) == len(batch.frames):
            return batch
        return msgspec.structs.replace(batch, frames=tuple(frames))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
