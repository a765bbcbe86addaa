"""One entry of a Snapshot that cannot be used fails closed alone: it is refused by its own code, told to control, and all else is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.digests import hash_secret
from penstock.core.reports import MOST_FAULTS
from penstock.core.snapshot import (
    Arm,
    ExperimentEntry,
    KeyEntry,
    Policy,
    Pool,
    Replica,
    Route,
    Rule,
    Snapshot,
    Target,
    TenantEntry,
)
from penstock.gateway.index import Index
from tests.gateway.house import OTHER, House, until
from tests.gateway.mock_control import controlled, next_of
from tests.gateway.raw_client import Got, ask, chat

BAD_RULE = Policy(name="bad", rules=(Rule(name="r", detect="pattern", patterns=("(",)),))
TORN = ExperimentEntry(
    name="e", epoch=1, seed="s", unit="user", arms=(Arm(name="a", pool="pool", weight=1.0),), incumbent="nobody"
)


def bad_pool(**changes: Any) -> dict[str, Any]:
    """A pool `new`, and a route of its name that leads to it."""
    return {"pools": [Pool(name="new", **changes)], "routes": [Route(name="new", to=(Target(pool="new"),))]}


# what is added to a good Snapshot; what is told of it; how a request to it is answered
FAULTS: dict[str, tuple[dict[str, Any], tuple[str, str], tuple[str, str], tuple[int, str]]] = {
    "missing pool": (
        {"routes": [Route(name="new", to=(Target(pool="nowhere"),))]},
        ("route", "new"),
        ("new", OTHER),
        (503, "route_unusable"),
    ),
    "missing policy": (
        {"routes": [Route(name="new", to=(Target(pool="pool"),), policy="none")]},
        ("route", "new"),
        ("new", OTHER),
        (503, "route_unusable"),
    ),
    "torn experiment": (
        {"routes": [Route(name="new", to=(Target(pool="pool"),), experiment=TORN)]},
        ("route", "new"),
        ("new", OTHER),
        (503, "route_unusable"),
    ),
    "address": (
        bad_pool(replicas=(Replica(id="r", url="nonsense"),)),
        ("pool", "new"),
        ("new", OTHER),
        (503, "pool_unusable"),
    ),
    "bound": (
        bad_pool(replicas=(Replica(id="r", url="http://127.0.0.1:1"),), max_in_flight=0),
        ("pool", "new"),
        ("new", OTHER),
        (503, "pool_unusable"),
    ),
    "pattern": (
        {"policies": [BAD_RULE], "routes": [Route(name="new", to=(Target(pool="pool"),), policy="bad")]},
        ("policy", "bad"),
        ("new", OTHER),
        (503, "policy_unusable"),
    ),
    "tenant's pattern": (
        {
            "policies": [BAD_RULE],
            "tenants": [TenantEntry(name="n", policy="bad")],
            "keys": [KeyEntry(id="k", hash=hash_secret("k"), tenant="n")],
        },
        ("policy", "bad"),
        ("mock", "k"),
        (503, "policy_unusable"),
    ),
    "missing tenant": (
        {"keys": [KeyEntry(id="k", hash=hash_secret("k"), tenant="nobody")]},
        ("key", "k"),
        ("mock", "k"),
        (403, "key_unusable"),
    ),
    "tenant's missing policy": (
        {
            "tenants": [TenantEntry(name="n", policy="none")],
            "keys": [KeyEntry(id="k", hash=hash_secret("k"), tenant="n")],
        },
        ("tenant", "n"),
        ("mock", "k"),
        (403, "key_unusable"),
    ),
    "two keys of one text": (
        {
            "tenants": [TenantEntry(name="n")],
            "keys": [KeyEntry(id=i, hash=hash_secret("k"), tenant=t) for i, t in (("k1", "n"), ("k2", "other"))],
        },
        ("key", "k2"),
        ("mock", "k"),
        (403, "key_unusable"),
    ),
}


def with_more(house: House, changes: dict[str, Any]) -> Snapshot:
    """The next Snapshot: these entries more, and the first key revoked."""
    now = house.worker.gateway.index.snapshot
    added: dict[str, tuple[Any, ...]] = {table: (*getattr(now, table), *entries) for table, entries in changes.items()}
    added["keys"] = tuple(key for key in added.get("keys", now.keys) if key.id != "key_1")
    return next_of(house, **added)


async def asked(house: House, model: str, key: str) -> Got:
    return await ask(house.port, chat("hello", key=key, model=model))


@pytest.mark.parametrize("name", FAULTS)
async def test_it_is_refused_alone_and_the_rest_is_swapped_in(tmp_path: Path, name: str) -> None:
    changes, (kind, entry), (model, key), (status, code) = FAULTS[name]
    async with controlled(tmp_path) as (house, control):
        gateway = house.worker.gateway
        sound = gateway.index.snapshot
        await control.publish(with_more(house, changes))
        await until(lambda: gateway.index.generation == 2)
        assert gateway.refused == ""
        assert (await ask(house.port, chat("hello"))).status == 401, "the revoked key is revoked"
        assert (await asked(house, "mock", OTHER)).status == 200, "and the others go on"
        got = await asked(house, model, key)
        assert (got.status, got.error["code"]) == (status, code)
        assert got.headers[b"x-penstock-request-id"]
        await until(lambda: any(report["generation"] == 2 for report in control.reports))
        (told,) = [report for report in control.reports if report["generation"] == 2][:1]
        assert told["refused"] == ""
        assert told["host"]
        assert [(fault["kind"], fault["name"]) for fault in told["faults"]] == [(kind, entry)]  # type: ignore[attr-defined]
        metrics = (await ask(house.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")).body.decode()
        assert f'penstock_snapshot_faults{{kind="{kind}",worker="w0"}} 1.0' in metrics
        listed = await ask(
            house.port, b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % OTHER.encode()
        )
        assert (b'"new"' in listed.body) == (model == "new" and kind != "route"), "what can be called at all is listed"
        await control.publish(msgspec.structs.replace(sound, generation=3))
        await until(lambda: gateway.index.generation == 3)
        assert gateway.index.faults == [], "and mended by the next"


async def test_one_of_two_replicas_that_cannot_be_dialled_is_left_out(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (house, control):
        (pool,) = house.worker.gateway.index.snapshot.pools
        more = msgspec.structs.replace(pool, replicas=(Replica(id="bad", url="http://[::"), *pool.replicas))
        await control.publish(next_of(house, pools=(more,)))
        await until(lambda: house.worker.gateway.index.generation == 2)
        for _ in range(5):
            assert (await ask(house.port, chat("hello"))).status == 200
        assert [fault.name for fault in house.worker.gateway.index.faults] == ["pool"]


async def test_a_caller_that_may_not_use_a_route_is_not_told_of_its_fault(tmp_path: Path) -> None:
    async with controlled(tmp_path, key={"models": ("mock",)}) as (house, control):
        now = house.worker.gateway.index.snapshot
        await control.publish(next_of(house, routes=(*now.routes, Route(name="new", to=(Target(pool="nowhere"),)))))
        await until(lambda: house.worker.gateway.index.generation == 2)
        got = await ask(house.port, chat("hello", model="new"))
        assert (got.status, got.error["code"]) == (404, "model_not_found")


async def test_a_report_names_some_and_counts_all(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (house, control):
        lost = tuple(KeyEntry(id=f"k{n}", hash=hash_secret(f"k{n}"), tenant="nobody") for n in range(50))
        now = house.worker.gateway.index.snapshot
        await control.publish(next_of(house, keys=(*now.keys, *lost)))
        await until(lambda: any(report["fault_count"] == 50 for report in control.reports))
        assert len(control.reports[-1]["faults"]) == MOST_FAULTS  # type: ignore[arg-type]


def test_faults_are_found_again_in_the_next_snapshot() -> None:
    first = Index(Snapshot(generation=1, policies=(BAD_RULE,)))
    second = Index(Snapshot(generation=2, policies=(BAD_RULE,)), first)
    assert [fault.name for fault in second.faults] == [fault.name for fault in first.faults] == ["bad"]
