"""The journal's bytes: a segment file is a 64-byte header, then frames; a frame is a length, a CRC-32C and a msgpack payload.

`docs/reference/journal-format.md` describes it for readers in other languages.
"""

import struct
from typing import NamedTuple

import msgspec
from crc32c import crc32c

from penstock.core.errors import Damaged
from penstock.core.exchange import Record

MAGIC = b"PNSTKJNL"
VERSION = 1
HEADER_BYTES = 64
FRAME_HEAD_BYTES = 8
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
SUFFIX = ".pjl"

# magic, format version, reserved, segment number, creation time (Unix seconds), length of the worker id, the id, CRC-32C of all before
_HEADER = struct.Struct("<8sHHIdB35sI")
_FRAME = struct.Struct("<II")
_TAG = b"\xa4type"  # each payload is a map whose first key is "type": how the next frame is found after a damaged one

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Position(NamedTuple):
    """A place in a worker's journal: the segment's number, and the byte in its file. Positions sort in the order of writing."""

    segment: int
    offset: int


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment says about itself."""

    segment: int
    worker: str
    created: float  # Unix seconds


def segment_name(segment: int) -> str:
    """The file name of a segment: ten digits and `.pjl`."""
    return f"{segment:010d}{SUFFIX}"


def encode_header(header: SegmentHeader) -> bytes:
    """The 64 bytes that open a segment.

    Raises:
        ValueError: if the worker's id has more than 35 bytes.
    """
    worker = header.worker.encode()
    if len(worker) > 35:
        raise ValueError(f"the worker id {header.worker!r} has more than 35 bytes")
    body = _HEADER.pack(MAGIC, VERSION, 0, header.segment, header.created, len(worker), worker, 0)[:-4]
    return body + crc32c(body).to_bytes(4, "little")


def decode_header(data: bytes) -> SegmentHeader:
    """The header in the first 64 bytes of `data`.

    Raises:
        Damaged: if these are not the bytes of a segment, or of a later format version.
    """
    if len(data) < HEADER_BYTES:
        raise Damaged(f"A journal segment starts with {HEADER_BYTES} bytes; this one has {len(data)}.")
    magic, version, _, segment, created, length, worker, crc = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Damaged("This is no journal segment: it does not start with PNSTKJNL.")
    if version != VERSION:
        raise Damaged(f"The journal segment has format version {version}; this program reads version {VERSION}.")
    if crc != crc32c(data[: HEADER_BYTES - 4]):
        raise Damaged("The journal segment's header is damaged: its checksum does not match.")
    return SegmentHeader(segment=segment, worker=worker[:length].decode(), created=created)


def encode_frame(record: Record) -> bytes:
    """`record` as one frame."""
    payload = _encode(record)
    return _FRAME.pack(len(payload), crc32c(payload)) + payload


def frame_end(data: bytes | memoryview, offset: int) -> int:
    """Where the frame at `offset` ends, or -1 if no whole, undamaged frame starts there."""
    start = offset + FRAME_HEAD_BYTES
    if start > len(data):
        return -1
    length, crc = _FRAME.unpack_from(data, offset)
    end: int = start + length
    if not 0 < length <= MAX_PAYLOAD_BYTES or end > len(data) or crc32c(data[start:end]) != crc:
        return -1
    return end


def frame_wanted(data: bytes | memoryview, offset: int) -> int:
    """How many bytes the frame at `offset` claims to have, head included; 0 if its head is not whole or claims nonsense."""
    if offset + FRAME_HEAD_BYTES > len(data):
        return 0
    length: int = _FRAME.unpack_from(data, offset)[0]
    return FRAME_HEAD_BYTES + length if 0 < length <= MAX_PAYLOAD_BYTES else 0


def decode_payload(payload: bytes | memoryview) -> Record:
    """The record in a frame's payload.

    Raises:
        Damaged: if it is none that this version knows.
    """
    try:
        record: Record = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"A journal frame holds no record that this version knows: {error}.") from None
    return record


def decode_frames(data: bytes) -> list[Record]:
    """All records of `data`, which must be whole frames and nothing else: the body of an ingest.

    Raises:
        Damaged: if a frame is torn or damaged; the message says at which byte.
    """
    records: list[Record] = []
    view = memoryview(data)
    offset = 0
    while offset < len(view):
        end = frame_end(view, offset)
        if end < 0:
            raise Damaged(f"The journal frame at byte {offset} is torn or damaged.")
        records.append(decode_payload(view[offset + FRAME_HEAD_BYTES : end]))
        offset = end
    return records


def find_frame(data: bytes, offset: int) -> int:
    """The start of the first undamaged frame at or after `offset`, or -1: how reading goes on after damage."""
    at = data.find(_TAG, offset)
    while at >= 0:
        for head in (3, 1, 5):  # map16, fixmap, map32
            start = at - head - FRAME_HEAD_BYTES
            if start >= offset and frame_end(data, start) >= 0:
                return start
        at = data.find(_TAG, at + 1)
    return -1
