"""What a worker has counted, kept on disk, so that its successor goes on from it: counters neither go down nor count twice.

The file holds the numbers and how far the journal had been written then. Whoever comes after a worker that was killed adds what the
journal holds beyond that, so that all that follows from records is exact; of what is counted without one (retries, refusals at the
edge), what came after the last writing is lost. The file is written before numbers are told to anybody, and every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

import msgspec

from penstock.core.errors import Damaged
from penstock.core.exchange import Exchange
from penstock.gateway.metrics import Cells, Distributions, Meters
from penstock.gateway.record import count
from penstock.journal.format import Position
from penstock.journal.reader import JournalReader
from penstock.journal.segments import segment_sizes

SUFFIX = ".counters"
_EVERY_S = 5.0
_log = logging.getLogger("penstock.gateway")


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    position: tuple[int, int]  # of the journal: segment, offset
    cells: dict[str, list[tuple[tuple[str, ...], float]]]
    distributions: dict[str, list[tuple[tuple[str, ...], list[int], float]]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Saved).decode


class Tally:
    """The numbers of one worker on disk.

    Args:
        file: where they are.
        journal: the folder of the worker's journal.
    """

    def __init__(self, file: Path, journal: Path, meters: Meters) -> None:
        self._file = file
        self._journal = journal
        self._meters = meters
        self._last = b""
        self._timer: asyncio.TimerHandle | None = None

    def file_of(self, worker: str) -> Path:
        """Where the worker of this name keeps its own."""
        return self._file.with_name(f"{worker}{SUFFIX}")

    def others(self) -> set[str]:
        """The names of the workers that have kept theirs beside this one's."""
        found = {file.name.removesuffix(SUFFIX) for file in self._file.parent.glob(f"*{SUFFIX}")}
        return found - {self._file.name.removesuffix(SUFFIX)}

    def start(self) -> None:
        """Goes on from what the worker before has left, and keeps it from now on. Nothing must have been recorded yet."""
        saved = read_saved(self._file)
        if saved is not None:
            resume(self._meters, saved)
            self._read_on(Position(*saved.position))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._again()

    def stop(self) -> None:
        """Writes for the last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.save()

    def save(self) -> None:
        """Writes the numbers as they are; where that fails, the ones before stay."""
        position = max(segment_sizes(self._journal).items(), default=(0, 0))
        cells, distributions = self._meters.numbers()
        data = _encode(
            Saved(
                position=position,
                cells={name: list(values.items()) for name, values in cells.items()},
                distributions={
                    name: [(key, counts, total) for key, (counts, total) in told.items()]
                    for name, told in distributions.items()
                },
            )
        )
        if data == self._last:
            return
        temporary = self._file.with_suffix(".new")
        try:
            temporary.write_bytes(data)
            temporary.replace(self._file)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._file, error)
            return
        self._last = data

    def _again(self) -> None:
        self.save()
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._again)

    def _read_on(self, position: Position) -> None:
        reader = JournalReader(self._journal, position)
        try:
            while (batch := reader.read()) is not None:
                for _, record in batch.records():
                    if isinstance(record, Exchange) and not (record.pair is not None and record.pair.of):
                        count(self._meters, record)
        except (Damaged, OSError) as error:
            _log.warning("the journal could not be counted on from %s: %s", position, error)
        finally:
            reader.close()


def read_saved(file: Path) -> Saved | None:
    """What `file` holds; None if it is not there or cannot be read."""
    try:
        return _decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s cannot be read, and counters begin anew: %s", file, error)
        with contextlib.suppress(OSError):
            os.replace(file, file.with_suffix(".damaged"))  # noqa: PTH105 - beside it, in one step
        return None


def resume(meters: Meters, saved: Saved) -> None:
    """Has `meters` go on from `saved`."""
    cells: Cells = {name: dict(values) for name, values in saved.cells.items()}
    distributions: Distributions = {
        name: {key: (counts, total) for key, counts, total in told} for name, told in saved.distributions.items()
    }
    meters.resume(cells, distributions)
