"""Sinks that are away, and workers and shippers that are killed: every exchange arrives in every sink, once after de-duplication by id.

All sinks at once: control, Elasticsearch, OTLP by HTTP or gRPC, Zipkin, lines on stdout, Parquet. Control and Parquet count once without any de-duplication.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Exchange
from penstock.journal.analytics.query import Bounds, run_query
from penstock.journal.reader import iterate
from penstock.journal.writer import JournalWriter
from penstock.net.client import Client, parse_origin
from penstock.net.server import Server
from tests.journal.fake_control import FakeControl
from tests.journal.sinks.collector import Collector, GrpcCollector, span_ids
from tests.journal.sinks.elastic_server import Elastic
from tests.journal.sinks.records import served

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
AWAY = frozenset({"control", "elasticsearch", "otlp", "zipkin"})  # the readers whose sinks are servers


async def until(condition: Callable[[], bool], deadline_s: float = 90.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


class Lines:
    """Whoever reads what the shipper prints: by the id of the request. Repeats have to be equal to the first, and what a kill cut off is dropped."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.repeats = 0
        self.reading = asyncio.Event()
        self.reading.set()

    async def follow(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while True:
            await self.reading.wait()
            piece = await stream.read(65536)
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                told = json.loads(line)
                name = told["event"]["id"]
                self.repeats += name in self.kept
                assert self.kept.setdefault(name, told) == told
            if not piece:
                return


class House:
    """A worker and a shipper in processes of their own, and all sinks."""

    def __init__(self, folder: Path, *, grpc: bool) -> None:
        self.folder = folder
        self.control, self.elastic, self.zipkin, self.lines = FakeControl(), Elastic(), Collector(), Lines()
        self.grpc = GrpcCollector() if grpc else None
        self.http = Collector()
        self.spans = self.grpc.kept if self.grpc is not None else self.http
        self.urls: list[str] = []
        self.shipper: asyncio.subprocess.Process | None = None
        self.worker: asyncio.subprocess.Process | None = None
        self.acknowledged: list[int] = []
        self.expected: set[str] = set()
        self._first = 0
        self._told = 0  # pid of the shipper whose port is known
        self._origin = parse_origin("http://127.0.0.1:1")
        self._tasks: list[asyncio.Task[None]] = []

    # -- sinks -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """The sinks, where they were before."""
        ports = [int(url.rpartition(":")[2]) for url in self.urls] or [0, 0, 0, 0]
        otlp: Collector | GrpcCollector = self.grpc if self.grpc is not None else self.http
        self.urls = [
            await self.control.start(ports[0]),
            await self.elastic.start(ports[1]),
            await otlp.start(ports[2]),
            await self.zipkin.start(ports[3]),
        ]
        self.lines.reading.set()

    async def close(self) -> None:
        """The sinks go, and nobody reads lines; what they hold stays."""
        self.lines.reading.clear()
        for sink in (self.control, self.elastic, self.http, self.zipkin):
            await sink.server.drain(0.2)
            sink.server = Server(sink.handle, limits=sink.server.limits)
        if self.grpc is not None:
            await self.grpc.stop()
            kept, self.grpc = self.grpc.kept, GrpcCollector()
            self.grpc.kept = kept

    def asked(self) -> int:
        return self.control.posts + len(self.elastic.bulks) + self.spans.requests + self.zipkin.requests

    # -- processes ---------------------------------------------------------------------------------------------------

    async def _spawn(self, script: str, *arguments: str) -> asyncio.subprocess.Process:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / script), *arguments, env=environment, stdout=pipe, stderr=pipe
        )

    async def ship(self) -> None:
        self.shipper = await self._spawn("shipping_child.py", str(self.folder), *self.urls)
        assert self.shipper.stdout is not None
        self._tasks.append(asyncio.create_task(self.lines.follow(self.shipper.stdout)))

    async def work(self, rate: float) -> None:
        self.worker = await self._spawn(
            "serving_child.py", str(self.folder / "journal" / "w"), str(self._first), str(rate)
        )
        self._first += 1_000_000
        self._hearing = asyncio.create_task(self._hear(self.worker))
        self._tasks.append(self._hearing)

    async def _hear(self, worker: asyncio.subprocess.Process) -> None:
        assert worker.stdout is not None
        async for line in worker.stdout:
            if line.endswith(b"\n"):
                self.acknowledged.append(int(line))

    async def end(self, child: asyncio.subprocess.Process | None, number: signal.Signals = signal.SIGKILL) -> None:
        if child is not None and child.returncode is None:
            child.send_signal(number)
            self.lines.reading.set()  # who prints to nobody does not hear the signal
            await child.wait()

    async def readers(self) -> dict[str, Any]:
        """What the shipper says of its readers."""
        assert self.shipper is not None
        assert self.shipper.stderr is not None
        if self._told != self.shipper.pid:
            self._told = self.shipper.pid
            self._origin = parse_origin(f"http://127.0.0.1:{(await self.shipper.stderr.readline()).decode().strip()}")
        client = Client()
        response = await client.request(self._origin, b"GET", b"/healthz")
        told: dict[str, Any] = msgspec.json.decode(await response.read())["readers"]
        await client.close()
        return told

    async def noticed(self) -> None:
        """Until every reader whose sink is a server says that it is away, and how far it is behind; Parquet goes on all the same."""
        async with asyncio.timeout(90):
            while True:
                told = await self.readers()
                assert set(told) == AWAY | {"stdout", "parquet"}
                if all(told[name]["problem"] and told[name]["lag_bytes"] for name in AWAY):
                    break
                await asyncio.sleep(0.02)
        assert not told["parquet"]["problem"]

    # -- what must be so ---------------------------------------------------------------------------------------------

    async def finish(self, deadline_s: float = 120.0) -> None:
        """The worker ends, what it left open is closed as a restart does it, and everything arrives."""
        await self.end(self.worker, signal.SIGTERM)
        await self._hearing
        directory = self.folder / "journal" / "w"
        JournalWriter.open(directory, "w", loop=None, clock=time.time).close()
        found = [record for _, record in iterate(directory) if isinstance(record, Exchange)]
        self.expected = {one.id for one in found}
        assert len(found) == len(self.expected)
        assert {served(n).id for n in self.acknowledged} <= self.expected
        spans = span_ids(found)
        if self.shipper is None or self.shipper.returncode is not None:
            await self.ship()

        def complete() -> bool:
            return (
                len(self.elastic.ids()) == len(self.lines.kept) == len(self.expected)
                and len(self.spans.spans) == len(self.zipkin.spans) == len(spans)
                and sum(isinstance(one, Exchange) for one in self.control.of("w")) == len(self.expected)
            )

        await until(complete, deadline_s)
        async with asyncio.timeout(deadline_s):
            while (await self.readers())["parquet"]["lag_bytes"]:
                await asyncio.sleep(0.05)
        await self.end(self.shipper, signal.SIGTERM)
        assert self.shipper is not None
        assert self.shipper.returncode == 0
        assert set(self.elastic.ids()) == set(self.lines.kept) == self.expected
        assert set(self.spans.spans) == set(self.zipkin.spans) == spans
        assert sorted(one.id for one in self.control.of("w") if isinstance(one, Exchange)) == sorted(self.expected)
        sql = (
            "SELECT count(*), count(DISTINCT id), md5(string_agg(id, '' ORDER BY id)) = md5($$WANTED$$) FROM exchanges"
        )
        result = await run_query(
            self.folder / "analytics", sql.replace("WANTED", "".join(sorted(self.expected))), bounds=Bounds(seconds=120)
        )
        assert result.rows == ((len(self.expected), len(self.expected), True),)
        assert not (self.folder / "dead.ndjson").exists()

    def repeats(self) -> str:
        return f"repeats: {self.elastic.repeats} documents, {self.spans.repeats + self.zipkin.repeats} spans, {self.lines.repeats} lines"


@pytest.fixture(params=["http", "grpc"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    one = House(tmp_path, grpc=request.param == "grpc")
    await one.open()
    yield one
    await one.end(one.shipper)
    await one.end(one.worker)
    for task in one._tasks:
        await task
    await one.close()


async def killed(house: House, kills: int, rate: float, draws: random.Random) -> None:
    """The worker, the shipper or both, at moments that nobody chose."""
    await house.work(rate)
    await house.ship()
    for _ in range(kills):
        wanted = house.asked() + draws.randint(1, 30)
        acknowledged = len(house.acknowledged) + draws.randint(1, 200)
        await until(lambda a=wanted, b=acknowledged: house.asked() >= a or len(house.acknowledged) >= b)  # type: ignore[misc]
        victim = draws.choice(("worker", "shipper", "both"))
        if victim != "shipper":
            await house.end(house.worker)
            await house.work(rate)
        if victim != "worker":
            await house.end(house.shipper)
            await house.ship()
    await house.finish(600)


@pytest.mark.parametrize("house", ["http"], indirect=True)
async def test_a_worker_and_a_shipper_that_are_killed_lose_nothing(house: House) -> None:
    await killed(house, 3, 300.0, random.Random(4))


@pytest.mark.parametrize("house", ["grpc"], indirect=True)
async def test_sinks_that_were_away_get_everything(house: House) -> None:
    await house.work(300.0)
    await house.ship()
    await until(lambda: min(len(house.elastic.ids()), len(house.lines.kept), len(house.spans.spans)) > 20)
    await house.close()
    await house.noticed()
    await house.open()
    await house.finish()


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_hundred_kills(house: House) -> None:
    await killed(house, 100, 200.0, random.Random(5))
    print(f"\n100 kills, {len(house.expected)} exchanges: {house.repeats()}")


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_minute_s_outage_at_500_requests_a_second(house: House) -> None:
    await house.work(500.0)
    await house.ship()
    await until(lambda: min(len(house.elastic.ids()), len(house.lines.kept), len(house.spans.spans)) > 500)
    await house.close()
    began, before = time.monotonic(), len(house.acknowledged)
    await house.noticed()
    await asyncio.sleep(max(0.0, began + 60 - time.monotonic()))  # the outage is a minute long
    rate = (len(house.acknowledged) - before) / (time.monotonic() - began)
    await house.open()
    back = time.monotonic()
    await house.finish(600)
    print(
        f"\n{len(house.expected)} exchanges, recorded at {rate:.0f} a second while the sinks were away; all in six sinks "
        f"{time.monotonic() - back:.1f} s after they came back; {house.repeats()}"
    )
    assert rate > 450
