"""One request in the journals of this machine: only the segments that hold its id at all are read record by record."""

import mmap
from collections.abc import Iterator
from pathlib import Path

from penstock.core.exchange import Exchange, Observation, Record
from penstock.journal.format import HEADER_BYTES, Position, segment_name
from penstock.journal.inspect import workers
from penstock.journal.reader import iterate
from penstock.journal.segments import list_segments


def look_up(journal: Path, request: str) -> tuple[Exchange | None, list[Observation]]:
    """The exchange with the id `request`, if it is below `journal` (DATA/journal), and what was said of it, in the order of telling.

    Raises:
        OSError: if the journals cannot be read.
    """
    exchange: Exchange | None = None
    said: list[Observation] = []
    for record in _holding(journal, request.encode()):
        if isinstance(record, Exchange) and record.id == request:
            exchange = record
        elif isinstance(record, Observation) and record.request == request:
            said.append(record)
    return exchange, sorted(said, key=lambda one: one.received)


def _holding(journal: Path, name: bytes) -> Iterator[Record]:
    for worker in workers(journal):
        directory = journal / worker
        for segment in list_segments(directory):
            if not _holds(directory / segment_name(segment), name):
                continue
            for position, record in iterate(directory, Position(segment, HEADER_BYTES)):
                if position.segment != segment:
                    break
                yield record


def _holds(path: Path, name: bytes) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(name) >= 0
    except (FileNotFoundError, ValueError):  # shipped and removed meanwhile; empty
        return False
