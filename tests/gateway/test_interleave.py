"""Interleaved answers: two models, one reply, and nothing lost when one of them does not answer."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Exchange
from penstock.core.snapshot import (
    Arm,
    CachePolicy,
    ExperimentEntry,
    InterleavePlan,
    Policy,
    Pool,
    Price,
    Replica,
    Route,
    Rule,
    Target,
)
from penstock.net.server import Reply, Request, Server
from tests.gateway.house import House, running
from tests.gateway.mock_upstream import JSON, MockUpstream, whole
from tests.gateway.raw_client import ask, chat


def begin(
    house: House, url: str, *, route: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **changes: Any
) -> None:
    """Interleaves the route with the server at `url`."""
    snapshot = house.worker.gateway.index.snapshot
    price = Price(prompt=1.0, completion=2.0)
    new = Pool(name="new", replicas=(Replica(id="n0", url=url),), version="mock:v2.0.0", price=price, **(pool or {}))
    entry = ExperimentEntry(
        name="i",
        epoch=1,
        seed="i",
        unit="user",
        incumbent="control",
        arms=(
            Arm(name="control", pool="pool", weight=0.0),
            Arm(name="new", pool="new", weight=1.0, ranges=((0.0, 1.0),)),
        ),
        interleave=InterleavePlan(**{"share": 1.0, **changes}),
    )
    to = Route(name="mock", to=(Target(pool="pool"),), experiment=entry, **(route or {}))
    house.take(pools=(*snapshot.pools, new), routes=(to,))


def counted(house: House, result: str) -> float:
    return house.worker.gateway.meters.cell("penstock_interleave_total", "i", result).value


async def record_of(house: House) -> Exchange:
    await house.settled()
    return house.exchanges()[-1]


async def says(text: str) -> Server:
    """An engine that always says this."""

    async def answer(_request: Request, reply: Reply) -> None:
        reply.send(200, JSON, whole(text))

    server = Server(answer)
    await server.start()
    return server


async def test_both_answers_are_choices_in_random_order(tmp_path: Path) -> None:
    other = await says("from the treatment")
    orders = set()
    async with running(tmp_path) as house:
        begin(house, f"http://127.0.0.1:{other.port}")
        for number in range(12):
            got = await ask(house.port, chat("from the control", user=f"u{number}"))
            assert got.status == 200
            assert got.headers[b"x-penstock-interleaved"] == b"both; n=2"
            assert got.headers[b"x-penstock-arm"] == b"i/control"
            body = msgspec.json.decode(got.body)
            assert [choice["index"] for choice in body["choices"]] == [0, 1]
            texts = tuple(choice["message"]["content"] for choice in body["choices"])
            one = await record_of(house)
            assert one.pair is not None
            said = {"control": "from the control", "new": "from the treatment"}
            assert texts == tuple(said[arm] for arm in one.pair.shown)
            orders.add(one.pair.shown)
            assert (one.arm, one.epoch, one.pair.arm, one.pair.of, one.pair.outcome) == ("control", 1, "new", "", "ok")
            assert (one.usage.completion, one.cost_nanousd, one.pair.cost_nanousd) == (4, 0, 11 * 1000 + 4 * 2000)
        await other.drain(0.1)
    assert orders == {("control", "new"), ("new", "control")}
    assert counted(house, "shown") == 12


async def test_a_list_is_drafted_from_both(tmp_path: Path) -> None:
    other = await says("- three\n- four")
    async with running(tmp_path) as house:
        begin(house, f"http://127.0.0.1:{other.port}", show="draft")
        got = await ask(house.port, chat("- one\n- two"))
        lines = msgspec.json.decode(got.body)["choices"][0]["message"]["content"].split("\n")
        one = await record_of(house)
        assert one.pair is not None
        assert got.headers[b"x-penstock-interleaved"] == b"draft; n=2"
        assert sorted(one.pair.shown) == ["control", "new"]
        whose = {"- one": "control", "- three": "new"}
        assert tuple(whose[line] for line in lines) == one.pair.shown
        plain = await ask(house.port, chat("no list at all"))
        assert len(msgspec.json.decode(plain.body)["choices"]) == 1
        assert (await record_of(house)).pair is not None
        assert counted(house, "single_apart") == 1
        await other.drain(0.1)


@pytest.mark.parametrize("fault", ["!reset", "!status500", "!nojson", "!status400"])
async def test_a_second_answer_that_fails_is_recorded_and_the_user_has_the_first(tmp_path: Path, fault: str) -> None:
    other = MockUpstream()
    other.always = fault
    async with running(tmp_path) as house:
        begin(house, await other.start())
        got = await ask(house.port, chat("hello"))
        assert (got.status, len(msgspec.json.decode(got.body)["choices"])) == (200, 1)
        one = await record_of(house)
        await other.stop()
    assert one.pair is not None
    assert (one.pair.shown, one.pair.outcome) == ((), "refused" if fault == "!status400" else "error")
    assert counted(house, "single_failed") == 1


async def test_a_second_answer_is_not_waited_for_long(tmp_path: Path) -> None:
    other = MockUpstream()
    other.always = "!hang"
    async with running(tmp_path) as house:
        begin(house, await other.start(), patience_s=0.05)
        got = await ask(house.port, chat("hello"))
        assert (got.status, len(msgspec.json.decode(got.body)["choices"])) == (200, 1)
        one = await record_of(house)
        assert one.pair is not None
        assert one.pair.outcome == "error"
        assert counted(house, "single_late") == 1
        await other.stop()


async def test_the_first_arm_failing_is_the_users_error_as_without_it(tmp_path: Path) -> None:
    other = await says("fine")
    async with running(tmp_path) as house:
        begin(house, f"http://127.0.0.1:{other.port}")
        got = await ask(house.port, chat("!status400"))
        assert got.status == 400
        got = await ask(house.port, chat("!reset"))
        assert got.status == 502
        one = await record_of(house)
        assert (one.pair, one.epoch) == (None, 0)
        await other.drain(0.1)


async def test_no_place_at_the_treatment_means_one_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        begin(house, "http://127.0.0.1:9", pool={"max_in_flight": 1})
        state = house.worker.gateway.pools.get("new")
        assert state is not None
        state.taken += 1
        assert (await ask(house.port, chat("hello"))).status == 200
        state.taken -= 1
        one = await record_of(house)
        assert (one.pair, counted(house, "single_busy")) == (None, 1)


async def test_tools_and_caches_stay_apart_from_it(tmp_path: Path) -> None:
    other = await says("fine")
    async with running(tmp_path) as house:
        begin(house, f"http://127.0.0.1:{other.port}", route={"cache": CachePolicy(mode="exact"), "coalesce": True})
        tools = [{"type": "function", "function": {"name": "pay", "parameters": {}}}]
        assert len(msgspec.json.decode((await ask(house.port, chat("hello", tools=tools))).body)["choices"]) == 1
        for _ in range(2):  # never from the cache, nor into it
            got = await ask(house.port, chat("hello", temperature=0))
            assert got.headers[b"x-penstock-cache"] == b"off"
            assert len(msgspec.json.decode(got.body)["choices"]) == 2
        await house.settled()
        await other.drain(0.1)
    assert (counted(house, "skipped_tools"), counted(house, "shown")) == (1, 2)


async def test_output_rules_see_both_answers(tmp_path: Path) -> None:
    other = await says("the word is swordfish")
    async with running(tmp_path) as house:
        begin(house, f"http://127.0.0.1:{other.port}")
        rule = Rule(name="secret", words=("swordfish",), on=("output",), do="mask")
        house.take(policies=(Policy(name="default", rules=(rule,)),))
        got = await ask(house.port, chat("hello"))
        texts = [choice["message"]["content"] for choice in msgspec.json.decode(got.body)["choices"]]
        assert len(texts) == 2
        assert not any("swordfish" in text for text in texts)
        await house.settled()
        await other.drain(0.1)
