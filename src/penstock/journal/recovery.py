"""What a writer does first: it repairs what a killed process left, so that every stream that was opened is also closed."""

import os
from pathlib import Path

import msgspec

from penstock.core.errors import Damaged
from penstock.core.exchange import Exchange, Opened
from penstock.journal.format import (
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    decode_header,
    find_frame,
    frame_end,
    segment_name,
)
from penstock.journal.segments import list_segments


class _Closed(msgspec.Struct, frozen=True, tag="exchange"):
    """Only the id of an Exchange: recovery needs no more, and reading less is quicker."""

    id: str


class _Other(msgspec.Struct, frozen=True, tag="observation"):
    """An Observation, of which recovery needs nothing."""


_decode = msgspec.msgpack.Decoder(_Closed | Opened | _Other).decode


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    `next_segment` is the number to go on with; `crashed` the streams without an end; `cut_bytes` were a torn tail and have been cut off;
    `damaged_bytes` lie between good frames and have been left as they are.
    """

    next_segment: int
    crashed: tuple[Exchange, ...] = ()
    cut_bytes: int = 0
    damaged_bytes: int = 0


def recover(directory: Path) -> Recovered:
    """Repair the newest segment in `directory` and say which streams were open.

    Each segment starts with the opening records of streams that were open then, so the newest readable one tells all. Segments are
    never appended to after this: the writer starts the next one, in which the crashed streams are closed before it becomes visible.
    """
    segments = list_segments(directory)
    if not segments:
        return Recovered(next_segment=1)
    for segment in reversed(segments):
        path = directory / segment_name(segment)
        data = path.read_bytes()
        try:
            decode_header(data)
        except Damaged:  # lost with the machine's power before it reached the disk: the one before tells
            continue
        opened, cut, damaged = _scan(data)
        if cut:
            os.truncate(path, len(data) - cut)
        return Recovered(
            next_segment=segments[-1] + 1,
            crashed=tuple(o.exchange for o in opened),
            cut_bytes=cut,
            damaged_bytes=damaged,
        )
    return Recovered(next_segment=segments[-1] + 1)


def _scan(data: bytes) -> tuple[list[Opened], int, int]:
    opened: dict[str, Opened] = {}
    damaged = 0
    offset = HEADER_BYTES
    while offset < len(data):
        end = frame_end(data, offset)
        if end < 0:
            start = find_frame(data, offset + 1)
            if start < 0:
                return list(opened.values()), len(data) - offset, damaged
            damaged += start - offset
            offset = start
            continue
        try:
            record = _decode(memoryview(data)[offset + FRAME_HEAD_BYTES : end])
        except msgspec.DecodeError:
            damaged += end - offset
        else:
            if isinstance(record, Opened):
                opened[record.exchange.id] = record
            elif isinstance(record, _Closed):
                opened.pop(record.id, None)
        offset = end
    return list(opened.values()), 0, damaged
