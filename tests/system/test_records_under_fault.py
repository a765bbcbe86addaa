"""The records of a running installation under fault: a disk that fills, and a minute without any sink, control included."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Exchange
from penstock.journal.inspect import cat
from penstock.net.client import Client, parse_origin
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.small_disk import small_disk
from tests.journal.sinks.collector import Collector
from tests.journal.sinks.elastic_server import Elastic
from tests.system.monitors import monitors
from tests.system.planted import PRICE, Bed, adopted, when
from tests.system.starter import running

pytestmark = [pytest.mark.system, pytest.mark.soak, pytest.mark.timeout(900)]


class Load:
    """Requests at a rate, over a few connections. `done` are the ids of those that were answered, `good` of those that went well."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self._origin = parse_origin(url)
        self._client = Client(max_connections=16)
        self._headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
        self._model = model
        self.done: list[str] = []
        self.good: list[str] = []
        self.failed: list[str] = []

    async def ask(self) -> int:
        body = {"model": self._model, "messages": [{"role": "user", "content": "how are you"}]}
        try:
            reply = await self._client.request(
                self._origin, b"POST", b"/v1/chat/completions", self._headers, msgspec.json.encode(body)
            )
            await reply.read()
        except Exception as error:
            self.failed.append(repr(error))
            return 0
        name = dict(reply.headers).get(b"x-penstock-request-id", b"").decode()
        self.done.append(name)
        if reply.status == 200:
            self.good.append(name)
        return reply.status

    async def run(self, rate: float, seconds: float) -> None:
        began, sent = time.monotonic(), 0
        waiting: set[asyncio.Task[int]] = set()
        while (now := time.monotonic() - began) < seconds:
            for _ in range(round(min(now + 0.02, seconds) * rate) - sent):
                task = asyncio.create_task(self.ask())
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                sent += 1
            await asyncio.sleep(0.02)
        await asyncio.gather(*waiting)

    async def close(self) -> None:
        await self._client.close()


def recorded(up: Any) -> list[str]:
    """Ids of all exchanges in the journals."""
    return [record.id for _, _, record in cat(up.data / "journal") if isinstance(record, Exchange)]


async def test_a_full_disk_is_counted_and_alerts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with small_disk(tmp_path / "data" / "journal", mounted=True, size="8m") as disk:
        if disk is None:
            pytest.skip("no file system may be mounted here")
        with (
            running(tmp_path / "data", "--workers", "2", "--empty") as up,
            monitors(up, tmp_path / "monitors") as watched,
        ):
            bed = Bed(up, elastic=Elastic())
            await bed.prepare()
            engine = MockUpstream()
            own = await adopted(bed, "bot", [await engine.start()], PRICE)
            await bed.apply(("Policy", "strict", {"audit": "strict"}), ("Tenant", "audited", {"policy": "strict"}))
            audited = (await bed.key("audited"))[1]
            await bed.answered("bot", audited, {200}, 4)
            await bed.answered("bot", own, {200}, 4)
            total = "sum(penstock_journal_lost_records_total)"

            async def scraped() -> bool:
                return await asyncio.to_thread(watched.samples, "count(penstock_journal_lost_records_total == 0)") == [
                    2.0
                ]

            await when(scraped)
            before = len(recorded(up))
            disk.fill()
            load = Load(up.gateway, own, "bot")
            await load.run(100.0, 5.0)
            assert not load.failed, "requests go on"
            lost = sum(await bed.samples("penstock_journal_lost_records_total{"))
            kept = len(recorded(up)) - before
            assert lost + kept == len(load.done) == 500, "to the last record"
            assert lost > 400
            watched_over = Load(up.gateway, audited, "bot")
            assert {await watched_over.ask() for _ in range(40)} - {200} == {503}, "under strict audit they are refused"
            assert set(watched_over.good) <= set(recorded(up)), (
                "or recorded: a small one may fit into a file's last page"
            )
            assert len(watched_over.good) < 20
            await watched_over.close()

            async def told() -> bool:
                firing = await bed.call("GET", "/alerts?state=firing")
                return "PenstockJournalLoss" in {one["name"] for one in firing}

            await when(told, 120)

            async def counted() -> bool:
                return (await asyncio.to_thread(watched.samples, total))[0] >= lost

            await when(counted)
            causes = (await bed.doctor())["causes"]
            assert causes[0]["name"] == "disk_full"
            disk.free()
            await bed.answered("bot", audited, {200})
            print(
                f"\n{len(load.done)} requests on a full disk: {lost:.0f} lost and counted, {kept} written; alert in control"
            )
            await load.close()
            await bed.http.aclose()
            await engine.stop()


async def test_a_minute_without_any_sink_at_500_requests_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elastic, zipkin, engine = Elastic(), Collector(), MockUpstream()
    monkeypatch.setenv("PENSTOCK_SHIP_ELASTICSEARCH_URL", await elastic.start())
    monkeypatch.setenv("PENSTOCK_SHIP_ZIPKIN_URL", await zipkin.start())
    monkeypatch.setenv("PENSTOCK_ANALYTICS_FLUSH_S", "2")
    ports = elastic.server.port, zipkin.server.port
    with running(tmp_path / "data", "--workers", "2", "--empty") as up:
        bed = Bed(up, elastic=elastic)
        await bed.prepare()
        key = await adopted(bed, "bot", [await engine.start()], PRICE)
        await bed.apply(("Route", "bot", {"to": [{"pool": "bot"}], "cache": {"mode": "exact", "ttl_s": 3600}}))
        await bed.answered("bot", key, {200}, 5)
        load = Load(up.gateway, key, "bot")
        await load.run(500.0, 2.0)
        await when(lambda: asyncio.sleep(0, len(elastic.ids()) >= len(load.done)))
        control = (await bed.process("control")).pid
        await elastic.stop()
        await zipkin.stop()
        os.kill(control, signal.SIGSTOP)
        began = time.monotonic()
        try:
            await load.run(500.0, 60.0)
        finally:
            os.kill(control, signal.SIGCONT)
        rate = (len(load.done) - 1000) / (time.monotonic() - began)
        assert not load.failed
        elastic.renew()
        zipkin.server = type(zipkin.server)(zipkin.handle, limits=zipkin.server.limits)
        await elastic.start(ports[0])
        await zipkin.start(ports[1])
        back = time.monotonic()
        every = recorded(up)
        assert set(load.done) <= set(every)
        assert len(every) == len(set(every))

        async def everywhere() -> bool:
            counted = (await bed.call("GET", "/overview?window_s=3600"))["requests"]
            return bool(len(elastic.ids()) == counted == len(every)) and await parquet() == len(every)

        async def parquet() -> int:
            told = await bed.call("POST", "/query", {"sql": "SELECT count(DISTINCT id) FROM exchanges"})
            return int(told["rows"][0][0])

        await when(everywhere, 400)
        took = time.monotonic() - back
        assert set(elastic.ids()) == set(every)

        async def traced() -> bool:
            return len([span for span in zipkin.spans.values() if span.get("kind") == "SERVER"]) == len(every)

        await when(traced, 300)
        shipped = await bed.call("POST", "/query", {"sql": "SELECT count(*), count(DISTINCT id) FROM exchanges"})
        assert shipped["rows"] == [[len(every), len(every)]]
        print(
            f"\n{len(every)} requests, {rate:.0f} a second while Elasticsearch, Zipkin and control were away for a minute; control, Parquet and "
            f"Elasticsearch had all, once, {took:.0f} s after they came back"
        )
        await load.close()
        await bed.http.aclose()
        await engine.stop()
        await elastic.stop()
        await zipkin.stop()
