import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from penstock.core.errors import Damaged, PenstockError
from penstock.journal.format import Position
from penstock.journal.names import journal_name
from penstock.journal.offsets import load_offset, save_offset, shipped_before
from penstock.journal.segments import list_segments
from penstock.journal.serve import serve_ship
from penstock.journal.ship import ControlSink, Shipper
from penstock.journal.writer import Bounds, JournalWriter
from penstock.net.client import Client, parse_origin
from tests.journal.fake_control import FakeControl
from tests.journal.records import exchange, ids, observation, opened


def write(directory: Path, numbers: range) -> None:
    bounds = Bounds(segment_bytes=1000)
    writer = JournalWriter.open(directory, directory.name, loop=None, clock=lambda: 1.0, bounds=bounds)
    for number in numbers:
        writer.append(exchange(number))
        writer.flush()
    writer.close()


def sink_of(url: str, folder: Path) -> ControlSink:
    return ControlSink(url, "token", journal=folder / "journal", offsets=folder / "ship")


async def until(condition: Callable[[], bool], deadline_s: float = 15.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_everything_arrives_once_and_in_order_through_faults_and_restarts(tmp_path: Path) -> None:
    control = FakeControl()
    url = await control.start()
    journal, offsets = tmp_path / "journal", tmp_path / "ship"
    write(journal / "gateway-0", range(20))
    write(journal / "gateway-1", range(100, 110))
    control.faults = ["refuse", "", "silent", "", "refuse", "silent"]
    for round_ in range(8):  # a shipper that dies after every few steps, and starts again
        sink = sink_of(url, tmp_path)
        shipper = Shipper(sink, journal, offsets)
        for _ in range(4):
            try:
                await shipper.step()
            except PenstockError:
                break
        if round_ == 3:
            write(journal / "gateway-0", range(20, 30))
        shipper.close()
        await sink.close()
    sink = sink_of(url, tmp_path)
    shipper = Shipper(sink, journal, offsets)
    while await shipper.step():
        pass
    assert control.ids("gateway-0") == ids([exchange(n) for n in range(30)])
    assert control.ids("gateway-1") == ids([exchange(n) for n in range(100, 110)])
    assert shipper.lag() == 0
    assert shipped_before(offsets, "gateway-0") == list_segments(journal / "gateway-0")[-1]
    shipper.close()
    await sink.close()
    await control.server.drain(1.0)


async def test_it_says_that_all_is_passed_on_once_it_is(tmp_path: Path) -> None:
    control = FakeControl()
    sink = sink_of(await control.start(), tmp_path)
    journal = tmp_path / "journal"
    write(journal / "gateway-0", range(20))
    write(journal / "gateway-1", range(3))
    control.faults = ["refuse"] * 3
    shipper = Shipper(sink, journal, tmp_path / "ship", poll_s=0.01, heard=sink.heard)
    running = asyncio.create_task(shipper.run())
    await until(lambda: bool(control.heard))
    assert control.ids("gateway-0") == ids([exchange(n) for n in range(20)])
    names, behind = control.heard[0]
    assert names == tuple(journal_name(journal / worker) for worker in ("gateway-0", "gateway-1"))
    assert 0 <= behind < 10
    await until(lambda: len(control.heard) >= 2)  # though nothing comes any more
    shipper.stop()
    await running
    shipper.close()
    await sink.close()
    await control.server.drain(1.0)


async def test_a_control_that_has_lost_its_books_gets_everything_again(tmp_path: Path) -> None:
    control = FakeControl()
    url = await control.start()
    sink = sink_of(url, tmp_path)
    shipper = Shipper(sink, tmp_path / "journal", tmp_path / "ship")
    write(tmp_path / "journal" / "w", range(5))
    while await shipper.step():
        pass
    control.committed.clear()
    control.records.clear()
    again = Shipper(sink, tmp_path / "journal", tmp_path / "ship")
    while await again.step():
        pass
    assert control.ids("w") == ids([exchange(n) for n in range(5)])
    control.committed[journal_name(tmp_path / "journal" / "w")] = Position(99, 64)
    with pytest.raises(Damaged, match="up to segment 99"):
        await Shipper(sink, tmp_path / "journal", tmp_path / "ship").step()
    await sink.close()
    await control.server.drain(1.0)


async def test_damage_is_stepped_over_and_counted(tmp_path: Path) -> None:
    control = FakeControl()
    url = await control.start()
    sink = sink_of(url, tmp_path)
    journal = tmp_path / "journal"
    write(journal / "w", range(2))
    path = journal / "w" / "0000000001.pjl"
    data = bytearray(path.read_bytes())
    data[64 + 50] ^= 1
    path.write_bytes(data)
    shipper = Shipper(sink, journal, tmp_path / "ship")
    while await shipper.step():
        pass
    assert control.ids("w") == ids([exchange(1)])
    assert shipper.counts.damaged > 0
    assert shipper.lag() == 0
    await sink.close()
    await control.server.drain(1.0)


async def test_the_process_serves_its_state_and_survives_a_control_that_is_away(tmp_path: Path) -> None:
    control = FakeControl()
    url = await control.start()
    port = control.server.port
    await control.server.drain(0.1)
    sink = sink_of(url, tmp_path)
    shipper = Shipper(sink, tmp_path / "journal", tmp_path / "ship", poll_s=0.01)
    stop = asyncio.Event()
    ports: list[int] = []
    task = asyncio.create_task(serve_ship([shipper], host="127.0.0.1", port=0, stop=stop, started=ports.append))
    await until(lambda: bool(ports))
    loop = asyncio.get_running_loop()
    writer = JournalWriter.open(tmp_path / "journal" / "w", "w", loop=loop, clock=lambda: 1.0)
    writer.append(opened(1))
    writer.append(observation(2))
    await writer.committed()
    await until(lambda: shipper.counts.failures >= 2)
    client = Client()
    origin = parse_origin(f"http://127.0.0.1:{ports[0]}")
    response = await client.request(origin, b"GET", b"/readyz")
    state = msgspec.json.decode(await response.read())
    assert response.status == 200
    assert state["readers"]["control"]["lag_bytes"] > 0
    assert state["readers"]["control"]["problem"]
    response = await client.request(origin, b"GET", b"/metrics")
    metrics = (await response.read()).decode()
    lag = state["readers"]["control"]["lag_bytes"]
    assert f'penstock_ship_lag_bytes{{reader="control"}} {float(lag)}' in metrics
    assert (await client.request(origin, b"GET", b"/other")).status == 404
    back = FakeControl()
    await back.start(port)
    await until(lambda: back.ids("w") == ids([opened(1), observation(2)]))
    writer.append(exchange(1))
    await writer.committed()
    await until(lambda: len(back.ids("w")) == 3 and shipper.lag() == 0 and not shipper.problem)
    stop.set()
    await task
    writer.close()
    await client.close()
    await sink.close()
    await back.server.drain(1.0)


def test_offsets_are_the_least_of_all_readers(tmp_path: Path) -> None:
    assert shipped_before(tmp_path, "w") == 0
    save_offset(tmp_path, "control", "w", Position(5, 70))
    assert load_offset(tmp_path, "control", "w") == Position(5, 70)
    assert shipped_before(tmp_path, "w") == 5
    save_offset(tmp_path, "audit", "w", Position(3, 70))
    assert shipped_before(tmp_path, "w") == 3
    (tmp_path / "otlp").mkdir()
    assert shipped_before(tmp_path, "w") == 0, "a reader that has not begun holds everything"
    (tmp_path / "control" / "w.json").write_text("{")
    assert load_offset(tmp_path, "control", "w") is None
