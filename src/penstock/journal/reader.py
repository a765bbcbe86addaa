"""Reading a worker's journal from any position, while it grows or after.

What tells a torn tail from damage: a frame that is not whole is the tail of a write that has not ended (or never will) as long as nothing
whole follows it in the newest segment; anything else that cannot be read is damage, and is stepped over and counted, not hidden.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from penstock.core.errors import Damaged
from penstock.core.exchange import Record
from penstock.journal.format import (
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    Position,
    decode_header,
    decode_payload,
    find_frame,
    frame_end,
    frame_wanted,
    segment_name,
)
from penstock.journal.segments import list_segments, segment_sizes

BATCH_BYTES = 1024 * 1024


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that hold no readable record."""

    segment: int
    start: int
    end: int
    reason: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Whole frames of one segment, from `start` to `end` (bytes of the file).

    `frames` are (offset, frame) pairs; what lies between them is `damage`.
    """

    segment: int
    start: int
    end: int
    frames: tuple[tuple[int, bytes], ...]
    damage: tuple[Damage, ...] = ()

    @property
    def body(self) -> bytes:
        """The frames, one after the other."""
        return b"".join([frame for _, frame in self.frames])

    def records(self) -> Iterator[tuple[Position, Record]]:
        """The records with their positions.

        Raises:
            Damaged: if a whole frame holds no record that this version knows.
        """
        for offset, frame in self.frames:
            yield Position(self.segment, offset), decode_payload(memoryview(frame)[FRAME_HEAD_BYTES:])


class JournalReader:
    """One reader of one worker's journal.

    `position` is where the next read begins; `gaps` counts segments that were missing; `at_end` tells whether the last read went as far
    as the journal did then.
    """

    def __init__(self, directory: Path, position: Position | None = None) -> None:
        self.position = position or Position(0, HEADER_BYTES)
        self.gaps = 0
        self.at_end = False
        self._directory = directory
        self._file = -1
        self._opened = 0

    def seek(self, position: Position) -> None:
        """Go to `position`."""
        self.position = position

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._opened = -1, 0

    def read(self, limit: int = BATCH_BYTES) -> Batch | None:
        """The next frames, at most about `limit` bytes of them (one frame at least), or None if there are none yet.

        The position moves behind them. A batch without frames says that there was only damage.

        Raises:
            Damaged: if a segment is of a later format version.
        """
        while True:
            later = self._open()
            if self._file < 0:
                self.at_end = True
                return None
            batch = self._scan(limit, finished=later is not None)
            if batch is not None:
                self.position = Position(batch.segment, batch.end)
                return batch
            if later is None:
                return None
            self.gaps += later - self.position.segment - 1
            self.position = Position(later, HEADER_BYTES)

    def lag(self) -> int:
        """How many bytes of frames lie after the position."""
        total = 0
        for segment, size in segment_sizes(self._directory).items():
            if segment == self.position.segment:
                total += max(0, size - self.position.offset)
            elif segment > self.position.segment:
                total += max(0, size - HEADER_BYTES)
        return total

    def _open(self) -> int | None:
        """Open the segment of the position, or the first after it; the number of the next one if there is one already."""
        segments = list_segments(self._directory)
        at = self.position.segment
        if at not in segments:
            later = [s for s in segments if s > at]
            if not later:
                self.close()
                return None
            if at:
                self.gaps += later[0] - at - 1
            self.position = Position(later[0], HEADER_BYTES)
            at = later[0]
        if self._opened != at:
            self.close()
            try:
                self._file = os.open(self._directory / segment_name(at), os.O_RDONLY)
            except FileNotFoundError:  # removed between the look and the opening
                return self._open()
            self._opened = at
        return next((s for s in segments if s > at), None)

    def _scan(self, limit: int, *, finished: bool) -> Batch | None:
        """The frames from the position on; None if there is nothing to act on."""
        segment, start = self.position
        start = max(start, HEADER_BYTES)
        size = os.fstat(self._file).st_size
        if start == HEADER_BYTES and size >= HEADER_BYTES:
            try:
                decode_header(os.pread(self._file, HEADER_BYTES, 0))
            except Damaged as error:
                if not finished:
                    raise
                if size == HEADER_BYTES:
                    return None
                lost = Damage(segment=segment, start=0, end=size, reason=error.message)
                return Batch(segment=segment, start=start, end=size, frames=(), damage=(lost,))
        want = limit
        while True:
            data = os.pread(self._file, want, start)
            whole = start + len(data) >= size
            self.at_end = whole and not finished
            frames, damage, offset, wanted = self._frames(data, segment, start, finished=finished, whole=whole)
            if frames or damage or wanted <= want or whole:
                break
            want = wanted
        if not frames and not damage:
            return None
        return Batch(segment=segment, start=start, end=start + offset, frames=tuple(frames), damage=tuple(damage))

    @staticmethod
    def _frames(
        data: bytes, segment: int, start: int, *, finished: bool, whole: bool
    ) -> tuple[list[tuple[int, bytes]], list[Damage], int, int]:
        """Frames, damage, the offset behind them in `data`, and how many bytes a first frame that is cut off needs."""
        frames: list[tuple[int, bytes]] = []
        damage: list[Damage] = []
        offset = 0
        while offset < len(data):
            end = frame_end(data, offset)
            if end >= 0:
                frames.append((start + offset, data[offset:end]))
                offset = end
                continue
            wanted = frame_wanted(data, offset)
            cut = offset + max(wanted, FRAME_HEAD_BYTES) > len(data)
            if cut and not whole:  # the limit cuts it off, not the file: if it is damage, a larger look will tell
                return frames, damage, offset, max(wanted, FRAME_HEAD_BYTES) if offset == 0 else 0
            following = find_frame(data, offset + 1)
            if following < 0:
                if finished and whole:
                    reason = "torn or damaged up to the segment's end"
                    damage.append(Damage(segment=segment, start=start + offset, end=start + len(data), reason=reason))
                    offset = len(data)
                elif not whole:  # damage whose end is not in sight
                    if offset == 0:
                        return frames, damage, offset, 2 * len(data)
                    break
                break
            damage.append(
                Damage(
                    segment=segment, start=start + offset, end=start + following, reason="the checksum does not match"
                )
            )
            offset = following
        return frames, damage, offset, 0


def iterate(directory: Path, start: Position | None = None) -> Iterator[tuple[Position, Record]]:
    """Every record of the journal in `directory` from `start` on, to where it ends now. Damage is stepped over: see `verify`."""
    reader = JournalReader(directory, start)
    try:
        while (batch := reader.read()) is not None:
            for offset, frame in batch.frames:
                try:
                    record = decode_payload(memoryview(frame)[FRAME_HEAD_BYTES:])
                except Damaged:
                    continue
                yield Position(batch.segment, offset), record
    finally:
        reader.close()
