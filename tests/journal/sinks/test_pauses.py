"""What a sink says of when to come back is heeded; what nobody foresaw in one is told, and ends no other."""

import asyncio
import time
from pathlib import Path

import pytest

from penstock.core.errors import Unavailable
from penstock.journal import serve
from penstock.journal.format import Position
from penstock.journal.offsets import keep_readers, load_offset, save_offset
from penstock.journal.posting import Poster
from penstock.journal.reader import Batch
from penstock.journal.refusals import DeadLetter, DeadLetters, Tally, in_halves
from penstock.journal.serve import serve_ship
from penstock.journal.ship import Shipper
from tests.journal.sinks.collector import Collector
from tests.journal.sinks.records import journal, served


class Moody:
    """A sink that raises what it is given, once each, and then takes everything."""

    def __init__(self, name: str, *moods: Exception) -> None:
        self.name = name
        self.tally = Tally()
        self.moods = list(moods)
        self.times: list[float] = []
        self.taken = asyncio.Event()

    async def positions(self) -> dict[str, Position] | None:
        return None

    async def send(self, worker: str, batch: Batch) -> None:
        self.times.append(time.monotonic())
        if self.moods:
            raise self.moods.pop(0)
        self.taken.set()

    async def close(self) -> None:
        pass


async def test_readers_do_not_end_each_other_and_wait_as_long_as_they_are_asked_to(tmp_path: Path) -> None:
    journal(tmp_path / "journal", [served(1)])
    moody = Moody("moody", ZeroDivisionError("nobody thought of it"), Unavailable("later", retry_after=0.5))
    calm = Moody("calm")
    shippers = [Shipper(sink, tmp_path / "journal", tmp_path / "ship") for sink in (moody, calm)]
    stop = asyncio.Event()
    task = asyncio.create_task(serve_ship(shippers, host="127.0.0.1", port=0, stop=stop))
    async with asyncio.timeout(30):
        await calm.taken.wait()
        await moody.taken.wait()
    _, second, third = moody.times
    assert third - second >= 0.5
    assert shippers[0].counts.failures == 2
    async with asyncio.timeout(30):
        while shippers[0].lag() or shippers[0].problem:
            await asyncio.sleep(0.01)
    stop.set()
    await task


async def test_a_sink_that_hangs_does_not_hold_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_STOP_S", 0.1)
    journal(tmp_path / "journal", [served(1)])

    class Hanging(Moody):
        async def send(self, worker: str, batch: Batch) -> None:
            self.taken.set()
            await asyncio.Event().wait()

    sink = Hanging("hanging")
    shipper = Shipper(sink, tmp_path / "journal", tmp_path / "ship")
    stop = asyncio.Event()
    task = asyncio.create_task(serve_ship([shipper], host="127.0.0.1", port=0, stop=stop))
    async with asyncio.timeout(30):
        await sink.taken.wait()
        stop.set()
        await task
    assert load_offset(tmp_path / "ship", "hanging", "w") is None, "it is sent again at the next start"


async def test_the_time_that_a_server_names_is_bounded(tmp_path: Path) -> None:
    collector = Collector()
    poster = Poster("The collector", await collector.start())
    for told, expected in ((b"3", 3.0), (b"999999", 60.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", None)):
        collector.server._handler = _refusing(told)
        try:
            await poster.ask("POST", "/v1/traces", b"x")
        except Unavailable as error:
            assert error.retry_after == expected
            assert "answered 503: busy" in str(error)
        else:
            raise AssertionError("it was taken")
    await poster.close()
    await collector.stop()


def _refusing(told: bytes):  # type: ignore[no-untyped-def]
    async def handle(request, reply) -> None:  # type: ignore[no-untyped-def]
        reply.send(503, ((b"retry-after", told),), b"busy")

    return handle


async def test_only_single_items_are_refused() -> None:
    asked: list[int] = []

    async def offer(part) -> str:  # type: ignore[no-untyped-def]
        asked.append(len(part))
        return "bad" if {3, 64} & set(part) else ""

    assert await in_halves(range(100), offer) == [(3, "bad"), (64, "bad")]
    assert sum(asked) < 600
    assert await in_halves([], offer) == []


def test_dead_letters_are_bounded(tmp_path: Path) -> None:
    import msgspec

    file = DeadLetters(tmp_path / "a" / "dead.ndjson", limit=1000)
    for n in range(100):
        file.write([DeadLetter(id=str(n), reason="r" * 50, record=msgspec.Raw(b"{}"))])
    kept = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in kept] == ["dead.ndjson", "dead.ndjson.1"]
    assert all(path.stat().st_size < 1200 for path in kept)
    assert msgspec.json.decode(kept[0].read_bytes().splitlines()[-1])["id"] == "99"


def test_a_reader_that_is_given_up_no_longer_holds_the_journal(tmp_path: Path) -> None:
    save_offset(tmp_path, "old", "w", Position(1, 64))
    save_offset(tmp_path, "control", "w", Position(5, 64))
    assert keep_readers(tmp_path, ["control", "otlp"]) == ["old"]
    assert load_offset(tmp_path, "control", "w") == Position(5, 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control", "otlp"]
    assert keep_readers(tmp_path, ["control", "otlp"]) == []
