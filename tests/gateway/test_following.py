"""Snapshots: from disk, from control, by deltas; bad ones refused whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from penstock.core.digests import hash_secret
from penstock.core.errors import Damaged
from penstock.core.snapshot import (
    KeyEntry,
    Policy,
    Pool,
    Replica,
    Route,
    Rule,
    Snapshot,
    SnapshotDelta,
    Target,
    TenantEntry,
    difference,
    patched,
)
from penstock.gateway.index import Index
from penstock.gateway.keep import read_snapshot, write_snapshot
from penstock.net.server import Reply, Request, Server
from tests.gateway.house import House, running, until
from tests.gateway.raw_client import ask, chat

JSON = [(b"content-type", b"application/json")]


class Control:
    """The part of control that workers follow."""

    def __init__(self) -> None:
        self.now: Snapshot | None = None
        self.before: dict[int, Snapshot] = {}
        self.changed = asyncio.Condition()
        self.asked: list[str] = []
        self.reports: list[dict[str, object]] = []
        self.tokens: set[bytes | None] = set()
        self.server = Server(self._handle)

    async def publish(self, snapshot: Snapshot) -> None:
        async with self.changed:
            if self.now is not None:
                self.before[self.now.generation] = self.now
            self.now = snapshot
            self.changed.notify_all()

    async def _handle(self, request: Request, reply: Reply) -> None:
        self.tokens.add(request.header(b"authorization"))
        if request.path == "/internal/v1/report":
            self.reports.append(msgspec.json.decode(request.body))
            reply.send(200, JSON, b"{}")
            return
        query = request.query.decode()
        self.asked.append(query)
        after = int(query.split("after=")[1].split("&")[0])
        async with self.changed:
            await self.changed.wait_for(lambda: self.now is not None and self.now.generation != after)
        assert self.now is not None
        answer: dict[str, Snapshot | SnapshotDelta] = {"snapshot": self.now}
        if after in self.before:
            answer = {"delta": difference(self.before[after], self.now)}
        reply.send(200, JSON, msgspec.json.encode(answer))


@asynccontextmanager
async def controlled(data: Path) -> AsyncIterator[tuple[House, Control]]:
    control = Control()
    await control.server.start()
    settings = {"control_url": f"http://127.0.0.1:{control.server.port}"}
    async with running(data, settings=settings) as house:
        yield house, control
    await control.server.drain(0.1)


def next_of(house: House, **changes: object) -> Snapshot:
    now = house.worker.gateway.index.snapshot
    return msgspec.structs.replace(now, **{"generation": now.generation + 1, **changes})


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


@pytest.mark.parametrize("fault", ["pool", "tenant", "address", "pattern"])
async def test_a_bad_snapshot_is_refused_whole_and_the_old_one_stays(tmp_path: Path, fault: str) -> None:
    async with controlled(tmp_path) as (house, control):
        gateway = house.worker.gateway
        old = gateway.index
        changes: dict[str, object] = {
            "pool": {"routes": (Route(name="new", to=(Target(pool="nowhere"),)),)},
            "tenant": {"keys": (KeyEntry(id="k", hash=hash_secret("k"), tenant="nobody"),)},
            "address": {"pools": (Pool(name="pool", replicas=(Replica(id="r", url="nonsense"),)),)},
            "pattern": {"policies": ({"name": "p", "rules": [{"name": "r", "detect": "pattern", "patterns": ["("]}]},)},
        }[fault]  # type: ignore[assignment]
        bad = msgspec.convert(
            {**msgspec.to_builtins(next_of(house)), **msgspec.to_builtins(changes)}, Snapshot, strict=False
        )
        await control.publish(bad)
        await until(lambda: bool(gateway.refused))
        assert gateway.index is old
        assert (await ask(house.port, chat("hello"))).status == 200
        await until(lambda: any(report["refused"] for report in control.reports))
        await control.publish(next_of(house, generation=3))
        await until(lambda: gateway.index.generation == 3)
        assert gateway.refused == ""


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
