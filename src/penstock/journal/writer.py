"""The journal's writer: append-only segments, one write for all records of a loop turn, recovery at open."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from crc32c import crc32c

from penstock.core.errors import Conflict, Unavailable
from penstock.core.exchange import Exchange, Opened, Record
from penstock.journal.format import MAX_PAYLOAD_BYTES, SegmentHeader, encode_frame, encode_header, segment_name
from penstock.journal.names import journal_name
from penstock.journal.recovery import Recovered, recover
from penstock.journal.segments import removable, segment_sizes

_encode = msgspec.msgpack.Encoder().encode
_RETRY_S = 1.0


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How large a segment may become before the next one begins, and all segments of a worker together, in bytes."""

    segment_bytes: int = 64 * 1024 * 1024
    disk_bytes: int = 8 * 1024 * 1024 * 1024


DEFAULT_BOUNDS = Bounds()


class Counts:
    """What happened since the process started; the numbers only grow.

    `failures` are writes that failed, `lost` the records in them.
    """

    __slots__ = ("bytes", "failures", "lost", "records")

    def __init__(self) -> None:
        self.bytes = 0
        self.records = 0
        self.failures = 0
        self.lost = 0


def crashed(exchange: Exchange, worker: str) -> Exchange:
    """The closing record of a stream whose process died: what was known at its opening, outcome `crashed`."""
    return msgspec.structs.replace(exchange, outcome="crashed", error="crashed", worker=worker)


class JournalWriter:
    """The only writer of one worker's journal.

    A record that is appended is in the kernel, and so survives the death of this process, once `flush` or `committed` says so. A
    write that fails loses its records: that is counted, requests under buffered audit go on, strict ones are refused.

    Attributes:
        name: the journal's, unlike that of any other host's (`journal.names`).
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        *,
        loop: asyncio.AbstractEventLoop | None,
        clock: Callable[[], float],
        bounds: Bounds,
        shipped: Callable[[str], int] | None,
        lock: int,
        recovered: Recovered,
        name: str,
    ) -> None:
        self.counts = Counts()
        self.name = name
        self.recovered = recovered
        self._directory = directory
        self._worker = worker
        self._loop = loop
        self._clock = clock
        self._bounds = bounds
        self._shipped = shipped
        self._lock = lock
        self._pending: list[bytes] = []
        self._scheduled = False
        self._waiters: list[asyncio.Future[bool]] = []
        self._open: dict[str, Opened] = {}
        self._ended: list[Opened] = []  # whose closing record is not written yet
        self._sizes = segment_sizes(directory)
        self._stored = sum(self._sizes.values())
        self._segment = recovered.next_segment - 1
        self._file = -1
        self._offset = 0
        self._failing = False
        self._tried = 0.0
        self._retired: list[int] = []
        self._sync_waiters: list[asyncio.Future[None]] = []
        self._syncing = False
        self._executor: ThreadPoolExecutor | None = None
        self._new_names = True

    @classmethod
    def open(
        cls,
        directory: Path,
        worker: str,
        *,
        loop: asyncio.AbstractEventLoop | None,
        clock: Callable[[], float],
        bounds: Bounds = DEFAULT_BOUNDS,
        shipped: Callable[[str], int] | None = None,
    ) -> "JournalWriter":
        """Take the folder, repair it, close crashed streams and start a new segment.

        Args:
            directory: the worker's own folder, made if missing.
            worker: the worker's id, at most 35 bytes.
            loop: where `append` schedules the write and waiters wait; None: the caller calls `flush`.
            clock: Unix seconds.
            bounds: sizes.
            shipped: gives, for the journal's name, the number below which every segment has been passed on by every reader; None: nothing may
                be removed.

        Raises:
            Conflict: if another process writes there.
            Unavailable: if the disk refuses.
        """
        lock = -1
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            recovered = recover(directory)
            writer = cls(
                directory,
                worker,
                loop=loop,
                clock=clock,
                bounds=bounds,
                shipped=shipped,
                lock=lock,
                recovered=recovered,
                name=journal_name(directory),
            )
            writer._start_segment([crashed(e, worker) for e in recovered.crashed])
        except BlockingIOError:
            os.close(lock)
            raise Conflict(f"Another process writes the journal in {directory}: stop it first.") from None
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            raise Unavailable(f"The journal in {directory} cannot be written: {error.strerror}.") from error
        return writer

    def append(self, record: Record) -> None:
        """Add `record` to what the end of this loop turn writes. It never fails and never waits: what cannot be written is counted."""
        self.add(record)
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def add(self, record: Record) -> None:
        """Add `record` to what the next `flush` writes, for a caller who will call it within this turn; otherwise as `append`."""
        try:
            payload = _encode(record)
        except (UnicodeError, OverflowError):  # half a surrogate pair, a number beyond 64 bits
            payload = b""
        if not 0 < len(payload) <= MAX_PAYLOAD_BYTES:
            self.counts.failures += 1
            self.counts.lost += 1
            return
        pending = self._pending
        pending.append(len(payload).to_bytes(4, "little") + crc32c(payload).to_bytes(4, "little"))
        pending.append(payload)
        if type(record) is Exchange:
            if self._open:
                opened = self._open.pop(record.id, None)
                if opened is not None:
                    self._ended.append(opened)
        elif type(record) is Opened:
            self._open[record.exchange.id] = record

    def committed(self) -> asyncio.Future[bool]:
        """Whether all that has been appended until now is in the kernel; False: it was lost, and counted."""
        waiter: asyncio.Future[bool] = self._running().create_future()
        if self._pending:
            self._waiters.append(waiter)
        else:
            waiter.set_result(not self._failing)
        return waiter

    async def strict(self) -> None:
        """Return when all that has been appended until now is on the disk (`fdatasync`, shared by all who wait).

        Raises:
            Unavailable: if it could not be written.
        """
        if not await self.committed():
            raise Unavailable("The journal cannot be written, and the audit policy is strict.", retry_after=_RETRY_S)
        waiter: asyncio.Future[None] = self._running().create_future()
        self._sync_waiters.append(waiter)
        if not self._syncing:
            self._sync()
        await waiter

    def check_strict(self) -> None:
        """Return while the journal takes records: asked before a request under strict audit is served.

        Raises:
            Unavailable: if the last write failed; once a second it is tried whether the disk takes bytes again.
        """
        if not self._failing:
            return
        now = self._clock()
        if now - self._tried >= _RETRY_S:
            self._tried = now
            try:
                self._start_segment(())
            except OSError:
                self.counts.failures += 1
            else:
                self._failing = self._room(0) < 0
        if self._failing:
            raise Unavailable("The journal cannot be written, and the audit policy is strict.", retry_after=_RETRY_S)

    def flush(self) -> bool:
        """Write what is pending, now, and tell those who wait; whether it is in the kernel."""
        self._scheduled = False
        if self._pending:
            records = len(self._pending) >> 1
            data = b"".join(self._pending)
            self._pending.clear()
            self._failing = not self._write(data)
            self._ended.clear()
            if self._failing:
                self.counts.failures += 1
                self.counts.lost += records
            else:
                self.counts.bytes += len(data)
                self.counts.records += records
        good = not self._failing
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(good)
        return good

    def close(self) -> None:
        """Write what is pending, finish what is being synced, and give the folder back."""
        self.flush()
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        for descriptor in (*self._retired, self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._retired, self._file, self._lock = [], -1, -1

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("this journal was opened without a loop to wait in")
        return self._loop

    def _write(self, data: bytes) -> bool:
        try:
            if self._offset >= self._bounds.segment_bytes:
                self._start_segment(())
            if self._room(len(data)) < 0:
                return False
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            self._undo()
            return False
        self._offset += written
        self._stored += written
        return True

    def _undo(self) -> None:
        try:
            os.ftruncate(self._file, self._offset)
        except OSError:  # the torn end stays; readers know it for one because a later segment follows
            self._offset = self._bounds.segment_bytes

    def _room(self, size: int) -> int:
        room = self._bounds.disk_bytes - self._stored - size
        if room >= 0:
            return room
        now = self._clock()
        if self._shipped is None or now - self._tried < _RETRY_S:
            return room
        self._tried = now
        for segment in removable(self._sizes, self._shipped(self.name), -room):
            (self._directory / segment_name(segment)).unlink(missing_ok=True)
            self._stored -= self._sizes.pop(segment)
        return self._bounds.disk_bytes - self._stored - size

    def _start_segment(self, closings: Iterable[Exchange]) -> None:
        """Begin the next segment, whole or not at all, with the streams that are open and the closings of crashed ones."""
        number = self._segment + 1
        header = encode_header(SegmentHeader(segment=number, worker=self._worker, created=self._clock()))
        # A stream whose closing record is about to be written here is carried too: this process may be killed before it is.
        carried: tuple[Record, ...] = (*self._open.values(), *self._ended, *closings)
        data = header + b"".join([encode_frame(record) for record in carried])
        final = self._directory / segment_name(number)
        draft = final.with_suffix(".draft")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            draft.rename(final)
        except OSError:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise
        if self._file >= 0:
            self._sizes[self._segment] = self._offset
            if self._syncing or self._sync_waiters:
                self._retired.append(self._file)
            else:
                os.close(self._file)
        self._segment, self._file, self._offset = number, descriptor, len(data)
        self._sizes[number] = len(data)
        self._stored += len(data)
        self._new_names = True

    def _sync(self) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal-sync")
        waiters, self._sync_waiters = self._sync_waiters, []
        retired, self._retired = self._retired, []
        folder = self._directory if self._new_names else None
        self._new_names = False
        self._syncing = True
        job = self._running().run_in_executor(self._executor, _fdatasync, [*retired, os.dup(self._file)], folder)
        job.add_done_callback(lambda done: self._synced(done, waiters))

    def _synced(self, done: asyncio.Future[None], waiters: list[asyncio.Future[None]]) -> None:
        self._syncing = False
        failure = done.exception() if not done.cancelled() else asyncio.CancelledError()
        if failure is not None:
            self.counts.failures += 1
        for waiter in waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(Unavailable("The journal could not be synced to disk.", retry_after=_RETRY_S))
        if self._sync_waiters:
            self._sync()


def _fdatasync(descriptors: list[int], folder: Path | None) -> None:
    try:
        for descriptor in descriptors:
            os.fdatasync(descriptor)
        if folder is not None:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
