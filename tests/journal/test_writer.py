import asyncio
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import Conflict, Unavailable
from penstock.core.exchange import Exchange, Opened
from penstock.journal.format import HEADER_BYTES, segment_name
from penstock.journal.inspect import verify
from penstock.journal.reader import iterate
from penstock.journal.segments import list_segments, removable
from penstock.journal.writer import DEFAULT_BOUNDS, Bounds, JournalWriter
from tests.journal.records import exchange, ids, observation, opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "w"
    path.mkdir()
    return path


def clock() -> float:
    return 1234.5


def write(
    directory: Path, *, bounds: Bounds = DEFAULT_BOUNDS, shipped: Callable[[str], int] | None = None
) -> JournalWriter:
    return JournalWriter.open(directory, "w", loop=None, clock=clock, bounds=bounds, shipped=shipped)


def read(directory: Path) -> list[str]:
    return ids([record for _, record in iterate(directory)])


async def test_what_is_committed_can_be_read_and_one_write_takes_a_whole_turn(folder: Path) -> None:
    writer = JournalWriter.open(folder / "w", "w", loop=asyncio.get_running_loop(), clock=clock)
    for number in range(3):
        writer.append(exchange(number))
    first, second = writer.committed(), writer.committed()
    assert read(folder / "w") == []
    assert await first is True
    assert await second is True
    assert read(folder / "w") == ids([exchange(n) for n in range(3)])
    assert await writer.committed() is True, "with nothing pending there is nothing to wait for"
    await writer.strict()
    writer.append(observation(9))
    await asyncio.gather(writer.strict(), writer.strict())
    assert (writer.counts.records, writer.counts.failures, writer.counts.lost) == (4, 0, 0)
    writer.close()


async def test_a_waiter_that_is_cancelled_does_not_disturb_the_others(folder: Path) -> None:
    writer = JournalWriter.open(folder / "w", "w", loop=asyncio.get_running_loop(), clock=clock)
    writer.append(exchange(1))
    leaves, stays = asyncio.ensure_future(writer.committed()), writer.committed()
    leaves.cancel()
    assert await stays is True
    gone = asyncio.create_task(writer.strict())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone.cancel()
    await writer.strict()
    writer.close()


def test_two_writers_never_share_a_folder(folder: Path) -> None:
    writer = write(folder / "w")
    with pytest.raises(Conflict, match="Another process"):
        write(folder / "w")
    writer.close()
    write(folder / "w").close()


def test_segments_rotate_and_carry_the_streams_that_are_open(folder: Path) -> None:
    writer = write(folder, bounds=Bounds(segment_bytes=600))
    writer.append(opened(1))
    for number in range(2, 12):
        writer.append(exchange(number))
        writer.flush()
    writer.append(exchange(1))
    writer.close()
    assert len(list_segments(folder)) > 3
    seen = read(folder)
    assert [i for i in seen if not i.endswith("?")] == ids([exchange(n) for n in (*range(2, 12), 1)])
    assert seen.count(ids([opened(1)])[0]) == len(list_segments(folder))
    again = write(folder)
    assert again.recovered.crashed == ()
    again.close()


def test_open_streams_are_closed_as_crashed_exactly_once(folder: Path) -> None:
    writer = write(folder, bounds=Bounds(segment_bytes=600))
    for number in range(4):
        writer.append(opened(number))
    writer.append(exchange(2))
    for number in range(10, 16):
        writer.append(exchange(number))
        writer.flush()
    writer.close()  # as good as killed: nothing says that the streams ended
    for _ in range(3):
        write(folder).close()
    closings = [r for _, r in iterate(folder) if isinstance(r, Exchange) and r.outcome == "crashed"]
    assert ids(list(closings)) == ids([exchange(0), exchange(1), exchange(3)])
    assert closings[0].tenant == "acme", "what was known is kept"
    (report,) = verify(folder.parent, folder.name)
    assert (report.open, report.repeated, report.missing) == ((), (), ())


def test_a_stream_that_ends_as_its_segment_does_is_closed_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the next segment was there and the stream's closing record was not in it yet."""
    writer = write(folder, bounds=Bounds(segment_bytes=200))
    writer.append(opened(1))
    writer.flush()
    writer.append(exchange(1))

    def killed(_descriptor: int, _data: bytes) -> int:
        raise KeyboardInterrupt

    start = writer._start_segment

    def then_killed(closings: Iterable[Exchange]) -> None:
        start(closings)
        monkeypatch.setattr(os, "write", killed)

    monkeypatch.setattr(writer, "_start_segment", then_killed)
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    monkeypatch.undo()
    os.close(writer._lock)
    writer._lock = -1
    write(folder).close()
    closings = [record for _, record in iterate(folder) if isinstance(record, Exchange)]
    assert [(one.id, one.outcome) for one in closings] == [(exchange(1).id, "crashed")]


@pytest.mark.parametrize("cut", [1, 5, 8, 9, 40])
def test_a_torn_tail_is_cut_off(folder: Path, cut: int) -> None:
    writer = write(folder)
    for number in range(3):
        writer.append(exchange(number))
    writer.close()
    path = folder / segment_name(1)
    os.truncate(path, path.stat().st_size - cut)
    writer = write(folder)
    assert writer.recovered.cut_bytes > 0
    writer.append(exchange(7))
    writer.close()
    assert read(folder) == ids([exchange(0), exchange(1), exchange(7)])
    assert verify(folder.parent, folder.name)[0].damage == ()


def test_damage_in_the_middle_is_left_alone_and_costs_only_itself(folder: Path) -> None:
    writer = write(folder)
    for number in range(3):
        writer.append(exchange(number))
    writer.append(opened(5))
    writer.close()
    path = folder / segment_name(1)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 30] ^= 1
    path.write_bytes(data)
    writer = write(folder)
    assert writer.recovered.damaged_bytes > 0
    assert writer.recovered.cut_bytes == 0
    assert [e.id for e in writer.recovered.crashed] == [exchange(5).id]
    writer.close()
    (report,) = verify(folder.parent, folder.name)
    assert [(d.segment, d.start) for d in report.damage] == [(1, HEADER_BYTES)]
    assert not report.sound


def test_a_newest_segment_that_the_disk_never_saw_is_stepped_over(folder: Path) -> None:
    writer = write(folder)
    writer.append(opened(1))
    writer.close()
    (folder / segment_name(2)).write_bytes(b"")
    (folder / (segment_name(3) + ".draft")).write_bytes(b"half")
    writer = write(folder)
    assert [e.id for e in writer.recovered.crashed] == [exchange(1).id]
    writer.close()
    assert read(folder) == ids([opened(1), exchange(1)])


class FullDisk:
    """Lets `room` bytes through and then refuses, as a full disk does; the rest of `os` is the real one."""

    def __init__(self) -> None:
        self.room = 1 << 40

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(descriptor, data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


async def test_a_full_disk_loses_records_counts_them_and_refuses_only_strict(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk()
    monkeypatch.setattr("penstock.journal.writer.os", disk)
    now = 100.0
    writer = JournalWriter.open(folder / "w", "w", loop=asyncio.get_running_loop(), clock=lambda: now)
    writer.append(exchange(1))
    assert await writer.committed()
    disk.room = 150  # half a record fits
    writer.append(exchange(2))
    writer.append(exchange(3))
    assert writer.flush() is False, "buffered requests go on"
    assert await writer.committed() is False
    assert (writer.counts.records, writer.counts.failures, writer.counts.lost) == (1, 1, 2)
    writer.append(exchange(4))
    with pytest.raises(Unavailable):
        await writer.strict()
    with pytest.raises(Unavailable) as refused:
        writer.check_strict()
    assert refused.value.status == 503
    disk.room = 1 << 40
    with pytest.raises(Unavailable):
        writer.check_strict()  # the disk is tried once a second
    now += 1.0
    writer.check_strict()
    writer.append(exchange(5))
    await writer.strict()
    assert writer.counts.lost == 3
    writer.close()
    assert read(folder / "w") == ids([exchange(1), exchange(5)])
    assert verify(folder)[0].sound, "half a record was taken back"


def test_the_disk_bound_removes_only_what_has_been_shipped(folder: Path) -> None:
    now = 0.0
    shipped = 0

    def tick() -> float:
        nonlocal now
        now += 2.0
        return now

    writer = JournalWriter.open(
        folder,
        "w",
        loop=None,
        clock=tick,
        bounds=Bounds(segment_bytes=1000, disk_bytes=4000),
        shipped=lambda _name: shipped,
    )
    for number in range(60):
        writer.append(exchange(number))
        writer.flush()
    lost = writer.counts.lost
    assert lost > 0
    assert list_segments(folder)[0] == 1, "nothing has been shipped, so nothing was removed"
    assert sum(p.stat().st_size for p in folder.glob("*.pjl")) <= 4000
    shipped = 4
    for number in range(60, 64):
        writer.append(exchange(number))
        writer.flush()
    assert writer.counts.lost == lost
    assert list_segments(folder)[0] > 1
    writer.close()


def test_removable_takes_the_oldest_shipped_and_never_the_newest() -> None:
    sizes = {1: 10, 2: 10, 3: 10}
    assert removable(sizes, shipped_before=9, excess=15) == [1, 2]
    assert removable(sizes, shipped_before=9, excess=100) == [1, 2]
    assert removable(sizes, shipped_before=2, excess=100) == [1]
    assert removable(sizes, shipped_before=9, excess=0) == []
    assert removable({}, shipped_before=9, excess=5) == []


def test_a_carried_opening_keeps_its_fields(folder: Path) -> None:
    writer = write(folder)
    writer.append(opened(1))
    writer.close()
    ((_, record),) = list(iterate(folder))
    assert isinstance(record, Opened)
    assert record == opened(1)


def test_a_record_that_cannot_be_written_is_counted_and_harms_no_other(folder: Path) -> None:
    writer = write(folder)
    writer.append(exchange(1))
    writer.append(exchange(2, model="\ud800"))
    writer.append(exchange(3, model="x" * (17 * 1024 * 1024)))
    writer.append(exchange(4, cost_nanousd=1 << 70))
    writer.append(exchange(5))
    assert writer.flush()
    assert (writer.counts.records, writer.counts.lost) == (2, 3)
    writer.close()
    assert read(folder) == ids([exchange(1), exchange(5)])
