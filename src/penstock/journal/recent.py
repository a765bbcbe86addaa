"""The last exchanges of a worker's journal, without reading all of it: its newest bytes, from the first whole record in them on."""

from pathlib import Path

from penstock.core.errors import Damaged
from penstock.core.exchange import Exchange
from penstock.journal.format import FRAME_HEAD_BYTES, HEADER_BYTES, decode_payload, find_frame, frame_end, segment_name
from penstock.journal.segments import list_segments

MOST_BYTES = 2 * 1024 * 1024


def recent(directory: Path, most_bytes: int = MOST_BYTES) -> list[Exchange]:
    """Exchanges in the last `most_bytes` bytes of the journal in `directory`, in their order; what is torn or damaged is stepped over.

    Raises:
        OSError: if it cannot be read.
    """
    found: list[Exchange] = []
    left = most_bytes
    for number in reversed(list_segments(directory)):
        if left <= 0:
            break
        path = directory / segment_name(number)
        try:
            size = path.stat().st_size
            start = max(HEADER_BYTES, size - left)
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(left)
        except FileNotFoundError:  # shipped and removed meanwhile
            continue
        left -= len(data)
        found[:0] = _exchanges(data)
    return found


def _exchanges(data: bytes) -> list[Exchange]:
    found: list[Exchange] = []
    offset = 0
    while 0 <= offset < len(data):
        end = frame_end(data, offset)
        if end < 0:
            offset = find_frame(data, offset + 1)
            continue
        try:
            record = decode_payload(data[offset + FRAME_HEAD_BYTES : end])
        except Damaged:
            record = None
        if isinstance(record, Exchange):
            found.append(record)
        offset = end
    return found
