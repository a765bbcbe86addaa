"""Snapshots: from disk, from control, by deltas; what is none is refused whole."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest

from penstock.core.digests import hash_secret
from penstock.core.errors import Damaged
from penstock.core.snapshot import (
    Arm,
    ExperimentEntry,
    KeyEntry,
    Policy,
    Route,
    Rule,
    Snapshot,
    SnapshotDelta,
    Target,
    TenantEntry,
    patched,
)
from penstock.gateway.index import Index
from penstock.gateway.keep import read_snapshot, write_snapshot
from tests.gateway.house import House, running, snapshot, until
from tests.gateway.mock_control import controlled, next_of
from tests.gateway.raw_client import ask, chat


async def test_a_change_reaches_the_worker_by_delta_and_is_kept_on_disk(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (house, control):
        gateway = house.worker.gateway
        first = next_of(house, generation=5)
        await control.publish(first)
        await until(lambda: gateway.index.generation == 5)
        assert (await ask(house.port, chat("hello"))).status == 200
        await control.publish(msgspec.structs.replace(first, generation=6, keys=first.keys[1:]))
        await until(lambda: gateway.index.generation == 6)
        assert (await ask(house.port, chat("hello"))).status == 401, "a revoked key"
        await until(lambda: (read_snapshot(tmp_path / "gateway" / "snapshot.json") or first).generation == 6)
        await until(lambda: any(report["generation"] == 6 for report in control.reports))
        assert control.reports[-1]["worker"] == "w0"
        assert control.reports[-1]["pid"] == os.getpid()
        assert control.tokens == {b"Bearer token"}
        await until(lambda: len(control.asked) == 3)
        assert [query.split("&")[0] for query in control.asked] == ["after=1", "after=5", "after=6"]


async def test_a_delta_that_does_not_fit_asks_for_the_whole(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (house, control):
        control.before[1] = Snapshot(generation=77)
        await control.publish(next_of(house, generation=9))
        await until(lambda: house.worker.gateway.index.generation == 9)
        assert control.asked[1].startswith("after=0&")


async def test_a_delta_that_leads_to_something_else_is_not_taken_and_the_whole_is_asked_for(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (house, control):
        gateway = house.worker.gateway
        first = next_of(house, generation=5)
        await control.publish(first)
        await until(lambda: gateway.index.generation == 5)
        control.lie = True
        more = KeyEntry(id="key_3", hash=hash_secret("third"), tenant="acme")
        await control.publish(msgspec.structs.replace(first, generation=6, keys=(*first.keys, more)))
        await until(lambda: gateway.index.generation == 6)
        assert (await ask(house.port, chat("hello", key="third"))).status == 200
        await until(lambda: len(control.asked) == 4)
        assert [query.split("&")[0] for query in control.asked] == ["after=1", "after=5", "after=0", "after=6"]
        assert gateway.meters.cell("penstock_errors_total", "snapshot_delta").value == 1
        control.lie = False
        await control.publish(msgspec.structs.replace(first, generation=7))
        await until(lambda: gateway.index.generation == 7)
        assert control.asked[3].startswith("after=6&")
        assert gateway.meters.cell("penstock_errors_total", "snapshot_delta").value == 1, "and deltas go on from there"


@pytest.mark.parametrize(
    "garbage",
    [
        b"{",
        b"{}",
        b'{"snapshot": {"generation": -1}}',
        b'{"snapshot": {"generation": 9, "keys": [{"id": 4}]}}',
        b"[" * 5000,
    ],
)
async def test_what_is_no_snapshot_is_refused_whole_and_the_old_one_stays(tmp_path: Path, garbage: bytes) -> None:
    async with controlled(tmp_path) as (house, control):
        gateway = house.worker.gateway
        old = gateway.index
        control.garbage = garbage
        await control.publish(next_of(house))
        await until(lambda: bool(gateway.refused))
        assert gateway.index is old
        assert (await ask(house.port, chat("hello"))).status == 200
        await until(lambda: any(report["refused"] for report in control.reports))
        control.garbage = b""
        await until(lambda: gateway.index.generation == 2)
        assert gateway.refused == ""


async def test_a_damaged_file_stops_no_gateway_that_control_can_help(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "gateway" / "snapshot.json"
    async with controlled(tmp_path, damaged=b'{"generation": 99, "keys": 4}') as (house, control):
        assert "Until control has told one" in caplog.text
        got = await ask(house.port, chat("hello"))
        assert (got.status, got.error["code"]) == (503, "no_snapshot")
        assert got.headers[b"retry-after"] == b"1"
        assert (await ask(house.port, b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")).status == 503
        await control.publish(snapshot([house.mock.url]))
        await until(lambda: house.worker.gateway.index.generation == 1)
        assert (await ask(house.port, chat("hello"))).status == 200
        await until(file.exists)
        assert (file.parent / "snapshot.json.damaged").read_bytes().startswith(b'{"generation": 99')
    with pytest.raises(Damaged, match="holds no Snapshot"):
        async with running(tmp_path / "alone", damaged=b"{"):
            pass


async def test_a_canarys_share_lapses_with_control_dead(tmp_path: Path) -> None:
    arms = (Arm(name="old", pool="pool", weight=0.0), Arm(name="new", pool="pool", weight=1.0))

    def canary(expires_at: float) -> ExperimentEntry:
        return ExperimentEntry(
            name="canary", epoch=4, seed="s", unit="request", arms=arms, incumbent="old", expires_at=expires_at
        )

    def route(house: House, lapse_s: float) -> tuple[Route, ...]:
        (only,) = house.worker.gateway.index.snapshot.routes
        return (msgspec.structs.replace(only, experiment=canary(time.time() + lapse_s)),)

    async with controlled(tmp_path) as (house, control):
        await control.publish(next_of(house, routes=route(house, 3600.0)))
        await until(lambda: house.worker.gateway.index.generation == 2)
        assert (await ask(house.port, chat("hello"))).headers[b"x-penstock-arm"] == b"canary/new"
        await control.publish(next_of(house, routes=route(house, 1.0)))
        await until(lambda: house.worker.gateway.index.generation == 3)
        await control.server.drain(0.0)  # nobody renews it any more
        for _ in range(500):
            last = await ask(house.port, chat("hello"))
            assert last.status == 200, "it goes on answering"
            if last.headers[b"x-penstock-arm"] == b"canary/old":
                break
            await asyncio.sleep(0.01)
        assert last.headers[b"x-penstock-arm"] == b"canary/old"
        assert house.worker.gateway.index.generation == 3
        await house.settled()
        found = {(record.arm, record.epoch) for record in house.exchanges()}
        assert found <= {("new", 4), ("old", 0)}
        assert ("old", 0) in found, "and counts for no arm"


async def test_without_control_the_file_alone_serves_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        file = tmp_path / "gateway" / "snapshot.json"
        write_snapshot(file, next_of(house, generation=4, keys=()))
        await until(lambda: house.worker.gateway.index.generation == 4)
        assert (await ask(house.port, chat("hello"))).status == 401
        file.write_bytes(b"{ damaged")
        write_snapshot(file, next_of(house, generation=5))
        await until(lambda: house.worker.gateway.index.generation == 5)


async def test_control_may_be_away(tmp_path: Path) -> None:
    async with running(tmp_path, settings={"control_url": "http://127.0.0.1:1"}) as house:
        assert (await ask(house.port, chat("hello"))).status == 200


async def test_readiness(tmp_path: Path) -> None:
    ready = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"
    async with running(tmp_path) as house:
        assert (await ask(house.port, ready)).status == 200
        pool = msgspec.structs.replace(house.worker.gateway.index.snapshot.pools[0], replicas=())
        house.take(pools=(pool,))
        assert (await ask(house.port, ready)).status == 503
        house.take(pools=(), routes=())
        assert (await ask(house.port, ready)).status == 200


async def test_in_flight_requests_keep_the_snapshot_they_began_with(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        waiting = asyncio.create_task(ask(house.port, chat("!wait")))
        await until(lambda: house.mock.running == 1)
        house.take(pools=(), routes=(), keys=())
        house.mock.gate.set()
        assert (await waiting).status == 200
        await house.settled()
        assert house.exchanges()[0].generation == 1


async def test_no_request_sees_two_snapshots(tmp_path: Path) -> None:
    """Each odd generation leads to one pool under one policy, each even one to another under another, while requests come."""
    async with controlled(tmp_path) as (house, control):
        gateway = house.worker.gateway
        first = gateway.index.snapshot
        (one,) = first.pools
        pools = {1: one, 0: msgspec.structs.replace(one, name="even", version="mock:v2.0.0")}
        words = {1: "oddly", 0: "evenly"}

        def generation(number: int) -> Snapshot:
            half = number % 2
            rule = Rule(name=words[half], words=(words[half],), do="flag")
            (route,) = first.routes
            to = (Target(pool=pools[half].name),)
            route = msgspec.structs.replace(route, to=to, policy=f"p{half}")
            policy = Policy(name=f"p{half}", rules=(rule,))
            return msgspec.structs.replace(
                first, generation=number, pools=(pools[half],), routes=(route,), policies=(policy,)
            )

        stop = asyncio.Event()

        async def asks() -> None:
            while not stop.is_set():
                assert (await ask(house.port, chat("oddly and evenly"))).status == 200

        asking = [asyncio.create_task(asks()) for _ in range(4)]
        for number in range(2, 40):
            await control.publish(generation(number))
            await until(lambda number=number: gateway.index.generation == number)  # type: ignore[misc]
        stop.set()
        await asyncio.gather(*asking)
        await house.settled()
        seen = {record.generation for record in house.exchanges()}
        for record in house.exchanges():
            if record.generation > 1:
                half = record.generation % 2
                assert (record.pool, record.version) == (pools[half].name, pools[half].version)
                assert {finding.rule for finding in record.findings} == {words[half]}
        assert len(seen) > 10


def test_what_has_not_changed_is_taken_over() -> None:
    rule = Rule(name="r", words=("x",))
    keys = tuple(KeyEntry(id=f"k{index}", hash=hash_secret(str(index)), tenant="t") for index in range(3))
    tenants = (TenantEntry(name="t"),)
    first = Snapshot(generation=1, keys=keys, tenants=tenants, policies=(Policy(name="p", rules=(rule,)),))
    changed = msgspec.structs.replace(keys[0], name="new")
    second = patched(first, SnapshotDelta(base=1, generation=2, keys=(changed,)))
    old = Index(first)
    new = Index(second, old)
    assert new.rules["p"] is old.rules["p"]
    assert [new.callers[key.hash] is old.callers[key.hash] for key in keys] == [False, True, True]
    third = msgspec.structs.replace(second, policies=(Policy(name="p", rules=(rule,), audit="strict"),))
    assert Index(third, new).rules["p"].strict


def test_the_newest_generation_stays_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "a" / "snapshot.json"
    assert read_snapshot(file) is None
    for generation, kept in ((3, 3), (2, 3), (4, 4)):
        write_snapshot(file, Snapshot(generation=generation))
        assert read_snapshot(file) == Snapshot(generation=kept)
    assert [path.name for path in file.parent.iterdir()] == ["snapshot.json"]
    file.write_text("no")
    with pytest.raises(Damaged, match="holds no Snapshot"):
        read_snapshot(file)
