"""A request that its replica does not answer: hedged, asked again, answered by the pool that the route falls back to; billed once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.digests import hash_secret
from penstock.core.snapshot import (
    Arm,
    CachePolicy,
    ExperimentEntry,
    HealthPolicy,
    KeyEntry,
    Limits,
    Policy,
    Pool,
    Price,
    Replica,
    Route,
    Rule,
    Target,
)
from tests.gateway.house import KEY, House, running, until
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.raw_client import Got, ask, chat

CALM = HealthPolicy(probe_s=0.0, slow_factor=0.0, hedge_share=1.0)
SPARE = b"other:v2.0.0"


@asynccontextmanager
async def with_spare(
    data: Path, *, replicas: int = 1, spare: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[tuple[House, MockUpstream]]:
    """A house whose route falls back to the pool `spare`, which has another version."""
    other = MockUpstream()
    entry = Pool(
        name="spare",
        replicas=(Replica(id="s0", url=await other.start()),),
        version=SPARE.decode(),
        digest="sha256:" + "cd" * 32,
        model="spare-model",
        price=Price(prompt=100.0, completion=1000.0),
        health=CALM,
        **(spare or {}),
    )
    route = {"fallback": ("spare",), **more.pop("route", {})}
    pool = {"health": CALM, "price": Price(prompt=1.0, completion=10.0), **more.pop("pool", {})}
    try:
        async with running(data, replicas=replicas, pool=pool, route=route, pools=(entry,), **more) as house:
            yield house, other
    finally:
        await other.stop()


def check_spare(got: Got, stream: bool = False) -> None:
    assert got.status == 200
    assert got.whole
    assert got.headers[b"x-penstock-version"] == SPARE
    assert got.headers[b"x-penstock-digest"] == b"sha256:" + b"cd" * 32
    assert not stream or got.body.endswith(b"data: [DONE]\n\n")


# -- fall-back -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["!reset", "!status503", "!status500", "!status429", "!garbage", "!hang"])
async def test_a_pool_that_cannot_answer_falls_back(tmp_path: Path, fault: str, stream: bool) -> None:
    async with with_spare(tmp_path, pool={"first_byte_timeout_s": 0.3}) as (house, other):
        _well(other)
        check_spare(await ask(house.port, chat(f"{fault} two", stream=stream)), stream)
        await house.settled()
        (record,) = house.exchanges()
        assert (record.pool, record.version, record.replica, record.fallback) == ("spare", SPARE.decode(), "s0", True)
        assert (record.outcome, record.attempts) == ("ok", 2)
        assert record.cost_nanousd == 11 * 100_000 + 4 * 1_000_000, "billed once, at the price of what answered"
        assert other.asked[0]["model"] == "spare-model"
        assert house.mock.asked[0]["model"] == "mock"
        metrics = (await house.worker.app.collect(False)).decode()
        assert 'penstock_fallbacks_total{pool="spare",route="mock",worker="w0"} 1.0' in metrics


async def test_a_pool_without_replicas_or_with_a_full_queue_falls_back(tmp_path: Path) -> None:
    async with with_spare(tmp_path, pool={"max_in_flight": 1, "max_waiting": 0}) as (house, _other):
        first = asyncio.create_task(ask(house.port, chat("!wait")))
        await until(lambda: house.mock.running == 1)
        check_spare(await ask(house.port, chat("second")))
        house.mock.gate.set()
        assert (await first).headers[b"x-penstock-version"] == b"mock:v1.0.0"
        pools = house.worker.gateway.index.snapshot.pools
        house.take(pools=(msgspec.structs.replace(pools[0], replicas=()), pools[1]))
        check_spare(await ask(house.port, chat("third")))
        await house.settled()


@pytest.mark.parametrize("fault", ["!status400", "!truncate a b c"])
async def test_what_the_client_did_or_has_seen_begin_does_not_fall_back(tmp_path: Path, fault: str) -> None:
    async with with_spare(tmp_path) as (house, other):
        got = await ask(house.port, chat(fault, stream=True))
        assert got.headers[b"x-penstock-version"] == b"mock:v1.0.0"
        assert not other.asked
        await house.settled()


async def test_when_the_spare_fails_too_the_last_refusal_is_told(tmp_path: Path) -> None:
    async with with_spare(tmp_path) as (house, other):
        got = await ask(house.port, chat("!status503"))
        assert (got.status, got.error["code"]) == (503, "engine_busy")
        assert len(other.asked) == 1
        await house.settled()
        (record,) = house.exchanges()
        assert (record.pool, record.attempts, record.cost_nanousd) == ("spare", 2, 0)


@pytest.mark.parametrize(
    ("models", "digest", "allowed"),
    [
        (None, "cd", True),
        (("mock",), "cd", False),
        (("mock", "direct"), "cd", True),
        (("mock",), "ab", True),
    ],
)
async def test_another_version_must_be_the_callers_to_use(
    tmp_path: Path, models: tuple[str, ...] | None, digest: str, allowed: bool
) -> None:
    direct = Route(name="direct", to=(Target(pool="spare"),))
    async with with_spare(tmp_path, key={"models": models}, routes=(direct,)) as (house, other):
        _well(other)
        pools = house.worker.gateway.index.snapshot.pools
        house.take(pools=(pools[0], msgspec.structs.replace(pools[1], digest="sha256:" + digest * 32)))
        got = await ask(house.port, chat("!reset"))
        assert (got.status == 200) == allowed
        assert bool(other.asked) == allowed


async def test_what_the_route_limits_is_limited_there_too(tmp_path: Path) -> None:
    async with with_spare(tmp_path, route={"max_tokens": 7}) as (house, other):
        _well(other)
        check_spare(await ask(house.port, chat("!reset")))
        assert [asked["max_tokens"] for asked in (*house.mock.asked, *other.asked)] == [7, 7]


async def test_who_shares_an_answer_may_have_had_it_alone(tmp_path: Path) -> None:
    direct = Route(name="direct", to=(Target(pool="spare"),))
    async with with_spare(tmp_path, route={"coalesce": True}, routes=(direct,)) as (house, other):
        _well(other)
        keys = house.worker.gateway.index.snapshot.keys
        narrow = KeyEntry(id="key_3", hash=hash_secret("sk-narrow"), tenant="acme", models=("mock",))
        house.take(keys=(*keys, narrow))
        pools = house.worker.gateway.index.snapshot.pools
        house.take(pools=(msgspec.structs.replace(pools[0], first_byte_timeout_s=0.3), pools[1]))
        both = await asyncio.gather(
            *[ask(house.port, chat("!hang", temperature=0, key=key)) for key in (KEY, "sk-narrow")]
        )
        assert [got.status for got in both] == [200, 504]
        await house.settled()


async def test_the_policy_holds_for_the_spare(tmp_path: Path) -> None:
    rule = Rule(name="no", words=("forbidden",), on=("output",), do="mask")
    secret = Rule(name="card", words=("secret",), on=("input",), do="mask")
    policies = (Policy(name="default", rules=(rule, secret)),)
    async with with_spare(tmp_path, policies=policies) as (house, other):
        _well(other)
        got = await ask(house.port, chat("!reset forbidden secret"))
        check_spare(got)
        assert b"forbidden" not in got.body
        assert b"secret" not in other.bodies[0]


async def test_an_answer_of_another_version_is_not_kept_for_the_first(tmp_path: Path) -> None:
    async with with_spare(tmp_path, route={"cache": CachePolicy(mode="exact")}) as (house, other):
        _well(other)
        for _ in range(2):
            check_spare(await ask(house.port, chat("!reset", temperature=0)))
        assert len(other.asked) == 2


async def test_a_dearer_spare_must_fit_the_limits(tmp_path: Path) -> None:
    async with with_spare(tmp_path, key={"limits": Limits(usd_per_day=0.02)}) as (house, other):
        got = await ask(house.port, chat("!reset", max_tokens=50))
        assert (got.status, got.error["code"]) == (429, "insufficient_quota")
        assert not other.asked
        await house.settled()
        _well(other)
        check_spare(await ask(house.port, chat("!reset", max_tokens=10)))


async def test_an_arm_of_an_experiment_does_not_fall_back(tmp_path: Path) -> None:
    experiment = ExperimentEntry(
        name="e",
        epoch=1,
        seed="s",
        unit="user",
        arms=(Arm(name="control", pool="pool", weight=1.0),),
        incumbent="control",
    )
    async with with_spare(tmp_path, route={"experiment": experiment}) as (house, other):
        got = await ask(house.port, chat("!status503", user="u"))
        assert got.status == 503
        assert not other.asked


# -- once more ------------------------------------------------------------------------------------------------------------


async def test_attempts_are_as_many_as_the_route_says(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=4, route={"attempts": 2}) as house:
        assert (await ask(house.port, chat("!reset"))).status == 502
        assert house.exchanges()[0].attempts == 2


async def test_who_cannot_be_sent_elsewhere_now_waits_for_a_place_there(tmp_path: Path) -> None:
    pool = {"max_in_flight": 1, "affinity": "off", "health": CALM}
    async with running(tmp_path, replicas=2, pool=pool) as house:
        house.worker.gateway.draw = lambda: 0.99
        busy = asyncio.create_task(ask(house.port, chat("!wait")))
        await until(lambda: house.mocks[1].running == 1)
        await house.mocks[0].stop()
        second = asyncio.create_task(ask(house.port, chat("hello")))
        state = house.worker.gateway.pools.all()[0]
        await until(lambda: state.waiting == 1)
        house.mocks[1].gate.set()
        assert [(await one).status for one in (busy, second)] == [200, 200]
        await house.settled()
        assert {record.replica for record in house.exchanges()} == {"r1"}


async def test_what_is_stuck_on_a_replica_that_is_out_takes_no_places_of_the_others(tmp_path: Path) -> None:
    health = msgspec.structs.replace(CALM, failures=1, pause_s=60.0, longest_pause_s=60.0)
    async with running(tmp_path, replicas=2, pool={"max_in_flight": 3, "affinity": "off", "health": health}) as house:
        house.worker.gateway.draw = lambda: 0.0
        state = house.worker.gateway.pools.all()[0]
        stuck = [asyncio.create_task(ask(house.port, chat("!wait"))) for _ in range(4)]
        await until(lambda: [member.in_flight for member in state.balancer.members] == [2, 2])
        assert (await ask(house.port, chat("!reset"))).status == 502
        assert [member.condition(time.monotonic()) for member in state.balancer.members] == ["out", "up"]
        assert (await ask(house.port, chat("hello"))).status == 200, (
            "the four that are stuck leave one place at the other"
        )
        for mock in house.mocks:
            mock.gate.set()
        assert {(await one).status for one in stuck} == {200}
        await house.settled()


async def test_retries_have_a_budget(tmp_path: Path) -> None:
    health = HealthPolicy(probe_s=0.0, failures=10**3, retry_share=0.0)
    async with running(tmp_path, replicas=2, pool={"health": health}) as house:
        began = time.monotonic()
        for _ in range(150):
            assert (await ask(house.port, chat("!reset"))).status == 502
        most = 150 + 100 + 1 + 10 * (time.monotonic() - began)
        asked = sum(len(mock.asked) for mock in house.mocks)
        assert 250 <= asked <= most
        metrics = (await house.worker.app.collect(False)).decode()
        assert f'penstock_retries_total{{pool="pool",result="sent",worker="w0"}} {asked - 150}.0' in metrics


# -- hedging --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def hedging(data: Path, **more: Any) -> AsyncIterator[House]:
    """Two replicas, the first of which is drawn first; a second copy goes out after 50 ms."""
    route = {"hedge_after_s": 0.05}
    async with running(data, replicas=2, pool={"health": CALM, "affinity": "off"}, route=route, **more) as house:
        house.worker.gateway.draw = lambda: 0.0
        yield house


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_to_answer_wins_and_the_other_one_stops(tmp_path: Path, stream: bool) -> None:
    async with hedging(tmp_path) as house:
        slow, quick = house.mocks
        _well(quick)
        got = await ask(house.port, chat("!hang there", stream=stream))
        assert got.status == 200
        assert got.whole
        await until(lambda: slow.left == 1)
        await house.settled()
        (record,) = house.exchanges()
        assert (record.replica, record.attempts, record.hedged, record.outcome) == ("r1", 2, True, "ok")
        assert (record.usage.prompt, record.usage.completion) == (11, 4), "billed once"
        assert house.worker.gateway.pools.all()[0].balancer.hedges.won == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_one_may_win_after_all(tmp_path: Path, stream: bool) -> None:
    async with hedging(tmp_path) as house:
        slow, other = house.mocks
        asked = asyncio.create_task(ask(house.port, chat("!wait there", stream=stream)))
        await until(lambda: other.running == 1)
        slow.gate.set()
        assert (await asked).whole
        await until(lambda: other.left == 1)
        await house.settled()
        (record,) = house.exchanges()
        assert (record.replica, record.attempts, record.hedged) == ("r0", 2, True)


async def test_a_quick_answer_is_not_hedged(tmp_path: Path) -> None:
    async with hedging(tmp_path) as house:
        house.take(routes=(msgspec.structs.replace(house.worker.gateway.index.snapshot.routes[0], hedge_after_s=10.0),))
        assert (await ask(house.port, chat("hello"))).status == 200
        (record,) = house.exchanges()
        assert (record.attempts, record.hedged) == (1, False)


@pytest.mark.parametrize("fault", ["!reset", "!status500", "!garbage"])
async def test_one_that_fails_leaves_the_other_to_answer(tmp_path: Path, fault: str) -> None:
    async with hedging(tmp_path) as house:
        slow, broken = house.mocks
        _says(broken, fault)
        asked = asyncio.create_task(ask(house.port, chat("!wait there")))
        await until(lambda: len(broken.asked) == 1)
        slow.gate.set()
        assert (await asked).status == 200
        await house.settled()
        assert house.exchanges()[0].replica == "r0"


async def test_both_may_fail(tmp_path: Path) -> None:
    async with hedging(tmp_path) as house:
        pool = house.worker.gateway.index.snapshot.pools[0]
        house.take(pools=(msgspec.structs.replace(pool, first_byte_timeout_s=0.3),))
        got = await ask(house.port, chat("!hang"))
        assert (got.status, got.error["code"]) == (504, "upstream_timeout")
        await house.settled()
        assert house.exchanges()[0].attempts == 2


async def test_a_client_that_leaves_stops_both(tmp_path: Path) -> None:
    async with hedging(tmp_path) as house:
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(chat("!hang"))
        await until(lambda: all(mock.running == 1 for mock in house.mocks))
        writer.transport.abort()
        await until(lambda: all(mock.left == 1 for mock in house.mocks))
        await house.settled()
        await until(lambda: [record.outcome for record in house.exchanges()] == ["cancelled"])


async def test_second_copies_have_a_budget(tmp_path: Path) -> None:
    async with hedging(tmp_path) as house:
        pool = house.worker.gateway.index.snapshot.pools[0]
        health = msgspec.structs.replace(CALM, hedge_share=0.05)
        house.take(pools=(msgspec.structs.replace(pool, first_byte_timeout_s=0.2, health=health),))
        for _ in range(5):
            assert (await ask(house.port, chat("!hang"))).status == 504
        assert sum(len(mock.asked) for mock in house.mocks) == 5, "20 requests pay for one copy"
        balancer = house.worker.gateway.pools.all()[0].balancer
        assert (balancer.hedges.taken, balancer.hedges.refused) == (0, 5)


def _well(mock: MockUpstream) -> None:
    """From now on it answers whatever it is told to do."""
    _says(mock, "")


def _says(mock: MockUpstream, fault: str) -> None:
    """From now on it does `fault`, whatever it is told to do."""
    mock.always = fault
