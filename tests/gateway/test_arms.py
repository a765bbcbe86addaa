"""Arms: who gets which, and what they vary."""

from pathlib import Path
from typing import Any

import msgspec

from penstock.core.snapshot import Arm, ContextCell, Contexts, ExperimentEntry, Pool, Route, Target
from tests.gateway.house import running
from tests.gateway.raw_client import ask, chat


def experiment(**changes: Any) -> ExperimentEntry:
    fields: dict[str, Any] = {
        "name": "bot",
        "epoch": 3,
        "seed": "s",
        "unit": "user",
        "incumbent": "control",
        "arms": (
            Arm(name="control", pool="pool", weight=0.5),
            Arm(name="treatment", pool="pool", weight=0.5, params={"temperature": 0.2, "top_k": 5}, system="Be brief."),
        ),
    }
    return ExperimentEntry(**{**fields, **changes})


async def test_a_user_stays_in_an_arm_and_the_arm_varies_the_request(tmp_path: Path) -> None:
    async with running(tmp_path, route={"experiment": experiment()}) as house:
        arms: dict[str, set[bytes]] = {}
        for number in range(40):
            user = f"user {number % 20}"
            got = await ask(house.port, chat("hello", user=user, temperature=1.5))
            arms.setdefault(user, set()).add(got.headers[b"x-penstock-arm"])
        assert all(len(found) == 1 for found in arms.values())
        assert set.union(*arms.values()) == {b"bot/control", b"bot/treatment"}
        for asked in house.mock.asked:
            if asked["temperature"] == 0.2:
                assert asked["top_k"] == 5
                assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
            else:
                assert asked["temperature"] == 1.5
                assert len(asked["messages"]) == 1
        await house.settled()
        for record in house.exchanges():
            assert (record.experiment, record.epoch, record.propensity) == ("bot", 3, 0.5)
            assert len(record.unit) == 32


async def test_shares_that_nobody_renews_lapse(tmp_path: Path) -> None:
    async with running(tmp_path, route={"experiment": experiment(expires_at=1.0)}) as house:
        for number in range(10):
            got = await ask(house.port, chat("hello", user=f"user {number}"))
            assert got.headers[b"x-penstock-arm"] == b"bot/control"
        await house.settled()
        assert {(record.epoch, record.propensity) for record in house.exchanges()} == {(0, 1.0)}


async def test_an_arm_of_another_version_is_told_as_such(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        snapshot = house.worker.gateway.index.snapshot
        better = msgspec.structs.replace(
            snapshot.pools[0], name="better", version="mock:v2.0.0", digest="sha256:" + "cd" * 32
        )
        arms = (Arm(name="a", pool="pool", weight=0.0), Arm(name="b", pool="better", weight=1.0))
        route = Route(name="mock", to=(Target(pool="pool"),), experiment=experiment(arms=arms, incumbent="a"))
        house.take(pools=(*snapshot.pools, better), routes=(route,))
        got = await ask(house.port, chat("hello"))
        assert got.headers[b"x-penstock-version"] == b"mock:v2.0.0"
        assert got.headers[b"x-penstock-digest"] == b"sha256:" + b"cd" * 32


async def test_the_pool_tells_the_engine_its_own_name_for_the_model(tmp_path: Path) -> None:
    async with running(tmp_path, pool={"model": "inner-name"}) as house:
        await ask(house.port, chat("hello", stream=True, zebra={"keep": [1.50, "ü"]}))
        asked = house.mock.asked[0]
        assert asked["model"] == "inner-name"
        assert asked["zebra"] == {"keep": [1.5, "ü"]}
        assert asked["stream_options"] == {"include_usage": True}


async def test_weighted_targets_share_the_traffic(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        snapshot = house.worker.gateway.index.snapshot
        second = msgspec.structs.replace(snapshot.pools[0], name="second", version="mock:v2.0.0")
        unused = Pool(name="unused")
        targets = (Target(pool="pool", weight=1), Target(pool="second", weight=1), Target(pool="unused", weight=0))
        house.take(pools=(*snapshot.pools, second, unused), routes=(Route(name="mock", to=targets),))
        seen = {(await ask(house.port, chat("hello"))).headers[b"x-penstock-version"] for _ in range(40)}
        assert seen == {b"mock:v1.0.0", b"mock:v2.0.0"}


async def test_a_context_decides_whose_shares_count_and_the_record_names_it(tmp_path: Path) -> None:
    cells = (
        ContextCell(name="0-63", ranges={"control": ((0.0, 1.0),)}),
        ContextCell(name="64-", ranges={"control": ((0.0, 0.0001),), "treatment": ((0.0001, 1.0),)}),
    )
    contexts = Contexts(by="length", edges=(64,), cells=cells)
    async with running(tmp_path, route={"experiment": experiment(unit="request", contexts=contexts)}) as house:
        for text in ("short", "long " * 80):
            for _ in range(5):
                await ask(house.port, chat(text))
        await house.settled()
        found = {(record.context, record.arm, record.propensity) for record in house.exchanges()}
        assert found == {("0-63", "control", 1.0), ("64-", "treatment", 0.9999)}
