"""Sinks that are away, and a shipper that is killed: every exchange arrives in every sink, once after de-duplication by id."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from penstock.core.exchange import Exchange
from penstock.journal.writer import Bounds, JournalWriter
from penstock.net.client import Client, parse_origin
from penstock.net.server import Server
from tests.journal.sinks.collector import Collector, span_ids
from tests.journal.sinks.elastic_server import Elastic
from tests.journal.sinks.records import served

ROOT = Path(__file__).parents[3]


async def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


class House:
    """A journal that grows, a shipper in a process of its own, and the three sinks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.elastic, self.otlp, self.zipkin = Elastic(), Collector(), Collector()
        self.exchanges: list[Exchange] = []
        self.urls: list[str] = []
        self.child: asyncio.subprocess.Process | None = None
        self.writer = JournalWriter.open(
            folder / "journal" / "w", "w", loop=None, clock=time.time, bounds=Bounds(segment_bytes=8_000)
        )

    def serve(self, count: int) -> None:
        """`count` more exchanges."""
        for _ in range(count):
            exchange = served(len(self.exchanges))
            self.exchanges.append(exchange)
            self.writer.append(exchange)
            if len(self.exchanges) % 10 == 0:
                self.writer.flush()
        self.writer.flush()

    async def open(self) -> None:
        """The sinks, where they were before."""
        ports = [int(url.rpartition(":")[2]) for url in self.urls] or [0, 0, 0]
        sinks: list[Elastic | Collector] = [self.elastic, self.otlp, self.zipkin]
        self.urls = [await sink.start(port) for sink, port in zip(sinks, ports, strict=True)]

    async def close(self) -> None:
        """The sinks go; what they hold stays."""
        for sink in (self.elastic, self.otlp, self.zipkin):
            await sink.stop()
            sink.server = Server(sink.handle, limits=sink.server.limits)

    async def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        script = str(Path(__file__).with_name("shipping_child.py"))
        self.child = await asyncio.create_subprocess_exec(
            sys.executable, script, str(self.folder), *self.urls, env=environment, stdout=asyncio.subprocess.PIPE
        )

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.child is not None and self.child.returncode is None:
            self.child.send_signal(number)
            await self.child.wait()

    async def notice(self) -> None:
        """Until every reader says that its sink is away, and how far it is behind."""
        assert self.child is not None
        assert self.child.stdout is not None
        origin = parse_origin(f"http://127.0.0.1:{(await self.child.stdout.readline()).decode().strip()}")
        client = Client()
        async with asyncio.timeout(60):
            while True:
                response = await client.request(origin, b"GET", b"/healthz")
                readers = msgspec.json.decode(await response.read())["readers"]
                assert set(readers) == {"elasticsearch", "otlp", "zipkin"}
                if all(reader["problem"] and reader["lag_bytes"] for reader in readers.values()):
                    break
                await asyncio.sleep(0.02)
        await client.close()

    def asked(self) -> int:
        return len(self.elastic.bulks) + self.otlp.requests + self.zipkin.requests

    def past(self, enough: int) -> bool:
        """Whether the sinks have been asked `enough` times, or have all."""
        return self.asked() >= enough or self.complete()

    def complete(self) -> bool:
        return len(self.elastic.ids()) == len(self.exchanges) and len(self.otlp.spans) == len(
            self.zipkin.spans
        ) == 6 * len(self.exchanges)

    def check(self) -> None:
        assert self.elastic.ids() == sorted(exchange.id for exchange in self.exchanges)
        assert set(self.otlp.spans) == set(self.zipkin.spans) == span_ids(self.exchanges)
        assert not (self.folder / "dead.ndjson").exists()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    one = House(tmp_path)
    await one.open()
    yield one
    await one.kill()
    one.writer.close()
    await one.close()


async def killed(house: House, kills: int, draws: random.Random) -> None:
    for _ in range(kills):
        house.serve(60)
        await house.start()
        enough = house.asked() + draws.randint(1, 20)
        await until(partial(house.past, enough))
        await house.kill()
    house.serve(20)
    await house.start()
    await until(house.complete)
    await house.kill(signal.SIGTERM)
    assert house.child is not None
    assert house.child.returncode == 0
    house.check()


async def test_a_shipper_that_is_killed_loses_nothing(house: House) -> None:
    await killed(house, 3, random.Random(4))


async def test_sinks_that_were_away_get_everything(house: House) -> None:
    await house.start()
    house.serve(40)
    await until(house.complete)
    await house.close()
    house.serve(200)
    await house.notice()
    await house.open()
    house.serve(20)
    await until(house.complete)
    house.check()


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_hundred_kills(house: House) -> None:
    await killed(house, 100, random.Random(5))
    print(
        f"\n100 kills, {len(house.exchanges)} exchanges: repeats {house.elastic.repeats} documents, {house.otlp.repeats} spans"
    )


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_minute_s_outage_at_500_requests_a_second(house: House) -> None:
    await house.start()
    house.serve(500)
    await until(house.complete)
    await house.close()
    began = time.monotonic()
    while time.monotonic() < began + 60:
        house.serve(50)
        due = began + (len(house.exchanges) - 500) / 500
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await house.open()
    back = time.monotonic()
    await until(house.complete, 600)
    house.check()
    print(
        f"\n{len(house.exchanges)} exchanges, all in three sinks {time.monotonic() - back:.1f} s after the sinks came back"
    )
