import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Damaged
from penstock.core.exchange import Record
from penstock.journal.format import (
    HEADER_BYTES,
    SegmentHeader,
    decode_frames,
    decode_header,
    encode_frame,
    encode_header,
    find_frame,
    frame_end,
)
from tests.journal.records import exchange, observation, opened

HEADER = SegmentHeader(segment=7, worker="gateway-0", created=12.5)
RECORDS: list[Record] = [exchange(1), opened(2), observation(3)]


def test_a_header_is_64_bytes_and_reads_back() -> None:
    data = encode_header(HEADER)
    assert len(data) == HEADER_BYTES
    assert decode_header(data) == HEADER
    with pytest.raises(ValueError, match="35 bytes"):
        encode_header(SegmentHeader(segment=1, worker="w" * 36, created=0.0))


@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_any_damage_to_a_header_is_seen(at: int, change: int) -> None:
    data = bytearray(encode_header(HEADER))
    data[at] ^= change
    with pytest.raises(Damaged):
        decode_header(bytes(data))


def test_a_later_version_is_refused_by_number() -> None:
    data = bytearray(encode_header(HEADER))
    data[8] = 2
    with pytest.raises(Damaged, match="version 2"):
        decode_header(bytes(data))
    with pytest.raises(Damaged, match="64 bytes"):
        decode_header(b"PNSTKJNL")


def test_frames_read_back() -> None:
    body = b"".join(encode_frame(r) for r in RECORDS)
    assert decode_frames(body) == RECORDS
    with pytest.raises(Damaged, match="at byte 0"):
        decode_frames(b"\0" * 8)  # zeros, as a file system may leave them, are no frames


@given(st.data())
def test_any_damage_to_a_frame_is_seen_and_the_next_frame_found(data: st.DataObject) -> None:
    frames = [encode_frame(r) for r in RECORDS]
    body = bytearray(b"".join(frames))
    at = data.draw(st.integers(0, len(frames[0]) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    assert frame_end(bytes(body), 0) < 0
    assert find_frame(bytes(body), 1) == len(frames[0])


@given(st.integers(0, 400))
def test_a_torn_frame_is_no_frame(kept: int) -> None:
    frame = encode_frame(RECORDS[0])
    if kept < len(frame):
        assert frame_end(frame[:kept], 0) < 0
        assert find_frame(frame[:kept], 0) < 0
