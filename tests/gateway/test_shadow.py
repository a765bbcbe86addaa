"""A shadow: copies that no user notices, whatever becomes of them."""

import asyncio
import gc
import time
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from penstock.core.exchange import Exchange
from penstock.core.snapshot import (
    Arm,
    ExperimentEntry,
    Limits,
    Policy,
    Pool,
    Price,
    Replica,
    Route,
    Rule,
    ShadowPlan,
    Target,
)
from penstock.gateway.call import Call
from penstock.gateway.cascade import Draft
from penstock.net.server import Reply, Request, Server
from tests.gateway.house import House, running, until
from tests.gateway.mock_upstream import JSON, MockUpstream, whole
from tests.gateway.raw_client import ask, chat
from tests.gateway.test_cascade import cascading


def shadowed(**changes: Any) -> ExperimentEntry:
    fields: dict[str, Any] = {"share": 1.0}
    return ExperimentEntry(
        name="s",
        epoch=1,
        seed="s",
        unit="user",
        incumbent="control",
        arms=(
            Arm(name="control", pool="pool", weight=0.0, ranges=()),
            Arm(name="candidate", pool="new", weight=1.0, ranges=((0.0, 1.0),), params={"temperature": 0.3}),
        ),
        shadow=ShadowPlan(**fields | changes),
    )


def begin(
    house: House, url: str, *, pool: dict[str, Any] | None = None, route: dict[str, Any] | None = None, **changes: Any
) -> None:
    """Puts a shadow on the route: the candidate is the server at `url`."""
    snapshot = house.worker.gateway.index.snapshot
    new = Pool(
        name="new",
        replicas=(Replica(id="n0", url=url),),
        version="mock:v2.0.0",
        digest="sha256:" + "cd" * 32,
        price=Price(prompt=1.0, completion=2.0),
        **(pool or {}),
    )
    entry = Route(name="mock", to=(Target(pool="pool"),), experiment=shadowed(**changes), **(route or {}))
    house.take(pools=(*snapshot.pools, new), routes=(entry,))


def counted(house: House, result: str) -> float:
    return house.worker.gateway.meters.cell("penstock_shadow_total", "s", result).value


async def copies(house: House) -> list[Exchange]:
    await until(lambda: not house.worker.gateway.shadows.busy)
    await house.settled()
    await house.worker.gateway.journal.committed()
    return [one for one in house.exchanges() if one.pair is not None]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_candidate_answers_a_copy_and_both_sides_are_recorded(tmp_path: Path, stream: bool) -> None:
    candidate = MockUpstream()
    async with running(tmp_path) as house:
        begin(house, await candidate.start())
        got = await ask(house.port, chat("hello there", user="ann", stream=stream, temperature=1.0))
        assert got.headers[b"x-penstock-arm"] == b"s/control"
        assert got.headers[b"x-penstock-version"] == b"mock:v1.0.0"
        (copy,) = await copies(house)
        (user,) = [one for one in house.exchanges() if one.pair is None]
        await candidate.stop()
    assert house.mock.asked[0]["temperature"] == 1.0
    assert (len(candidate.asked), candidate.asked[0]["temperature"]) == (1, 0.3)
    assert (user.experiment, user.arm, user.epoch) == ("s", "control", 0)
    assert (copy.experiment, copy.arm, copy.epoch, copy.version) == ("s", "candidate", 1, "mock:v2.0.0")
    assert copy.unit == user.unit != ""
    assert (copy.outcome, copy.usage.completion, copy.cost_nanousd) == ("ok", 4, 11 * 1000 + 4 * 2000)
    assert copy.phases.last_token > 0
    pair = copy.pair
    assert pair is not None
    assert (pair.of, pair.arm, pair.similarity) == (user.id, "control", 1_000_000)
    assert (pair.latency_ns, pair.usage) == (user.phases.last_token, user.usage)
    assert bool(pair.first_ns) is stream
    assert counted(house, "compared") == 1
    assert house.worker.gateway.meters.cell("penstock_shadow_cost_usd_total", "s").value == pytest.approx(19e-6)


async def test_a_request_that_offers_tools_is_not_copied(tmp_path: Path) -> None:
    candidate = MockUpstream()
    async with running(tmp_path) as house:
        begin(house, await candidate.start())
        tools = [{"type": "function", "function": {"name": "pay", "parameters": {}}}]
        assert (await ask(house.port, chat("hello", tools=tools))).status == 200
        assert (await ask(house.port, chat("hello", n=2))).status == 200
        assert await copies(house) == []
        await candidate.stop()
    assert candidate.asked == []
    assert (counted(house, "skipped_tools"), counted(house, "skipped_choices")) == (1, 1)


async def test_a_full_queue_drops_and_counts_while_users_are_answered(tmp_path: Path) -> None:
    candidate = MockUpstream()
    candidate.always = "!wait"
    async with running(tmp_path) as house:
        begin(house, await candidate.start(), queue=3, in_flight=2)
        for number in range(20):
            assert (await ask(house.port, chat(f"hello {number}"))).status == 200
        shadows = house.worker.gateway.shadows
        await until(lambda: counted(house, "dropped_full") == 15)
        assert candidate.running <= 2
        candidate.gate.set()
        candidate.always = ""
        found = await copies(house)
        await candidate.stop()
    assert not shadows.busy
    assert len(found) == 5
    assert counted(house, "compared") == 5


@pytest.mark.parametrize("fault", ["!reset", "!garbage", "!status500", "!truncate", "!nojson", "!status400"])
async def test_a_broken_candidate_is_recorded_and_no_user_sees_it(tmp_path: Path, fault: str) -> None:
    candidate = MockUpstream()
    candidate.always = fault
    async with running(tmp_path) as house:
        begin(house, await candidate.start())
        got = await ask(house.port, chat("hello"))
        assert got.status == 200
        (copy,) = await copies(house)
        await candidate.stop()
    assert copy.outcome == ("refused" if fault == "!status400" else "error")
    assert copy.pair is not None
    assert (copy.pair.outcome, copy.pair.similarity) == ("ok", -1)
    assert counted(house, "failed") == 1


async def test_a_candidate_that_is_not_there_or_hangs_touches_nobody(tmp_path: Path) -> None:
    candidate = MockUpstream()
    candidate.always = "!hang"
    async with running(tmp_path) as house:
        begin(house, await candidate.start(), deadline_s=0.3, in_flight=1)
        for number in range(4):
            assert (await ask(house.port, chat(f"hello {number}"))).status == 200
        found = await copies(house)
        assert {one.error for one in found} == {"shadow_deadline"}
        assert len(found) + counted(house, "dropped_late") == 4
        await candidate.stop()
        assert (await ask(house.port, chat("hello"))).status == 200
        await copies(house)
    assert counted(house, "failed") >= 2


async def test_copies_take_free_places_only(tmp_path: Path) -> None:
    candidate = MockUpstream()
    candidate.always = "!wait"
    async with running(tmp_path) as house:
        begin(house, await candidate.start(), pool={"max_in_flight": 1}, in_flight=3)
        for number in range(3):
            await ask(house.port, chat(f"hello {number}"))
        await until(lambda: counted(house, "dropped_busy") == 2)
        candidate.gate.set()
        candidate.always = ""
        assert len(await copies(house)) == 1
        await candidate.stop()


async def test_what_ended_copies_nothing_more(tmp_path: Path) -> None:
    candidate = MockUpstream()
    candidate.always = "!wait"
    async with running(tmp_path) as house:
        begin(house, await candidate.start(), in_flight=1)
        for number in range(3):
            await ask(house.port, chat(f"hello {number}"))
        await until(lambda: candidate.running == 1)
        house.take(routes=(Route(name="mock", to=(Target(pool="pool"),)),))
        candidate.gate.set()
        candidate.always = ""
        assert len(await copies(house)) == 1
        await candidate.stop()
    assert counted(house, "dropped_ended") == 2


async def test_a_judge_is_asked_in_both_orders(tmp_path: Path) -> None:
    asked: list[str] = []

    def letter(text: str) -> str:
        if manner == "lazy":
            return "A"
        return "A" if text.index("I look") < text.index("one two") else "**B**"

    manner = "fair"

    async def answer(request: Request, reply: Reply) -> None:
        text = msgspec.json.decode(request.body)["messages"][-1]["content"]
        asked.append(text)
        reply.send(200, JSON, whole(letter(text.split("Answer A:")[1])))

    candidate, judge = MockUpstream(), Server(answer)
    await judge.start()
    async with running(tmp_path) as house:
        begin(house, await candidate.start(), judge="judge")
        snapshot = house.worker.gateway.index.snapshot
        seat = Pool(name="judge", replicas=(Replica(id="j", url=f"http://127.0.0.1:{judge.port}"),))
        house.take(pools=(*snapshot.pools, seat))
        found: list[str] = []
        for how, fault in (("fair", None), ("fair", "!tool"), ("lazy", "!tool")):
            manner = how
            candidate.always = fault
            await ask(house.port, chat("one two {}"))
            pair = (await copies(house))[-1].pair
            assert pair is not None
            found.append(pair.judged)
            assert (pair.similarity == 1_000_000) is (fault is None)
        await candidate.stop()
        await judge.drain(0.1)
    # The same words are a tie that nobody need be asked about; who says A whatever A is contradicts himself.
    assert found == ["tie", "first", "tie"]
    assert len(asked) == 4


async def test_users_wait_no_longer_for_it(tmp_path: Path) -> None:
    """The short form of `make bench-experiments`'s line on latency."""
    candidate = MockUpstream()
    candidate.always = "!hang"
    async with running(tmp_path) as house:
        begin(house, await candidate.start(), in_flight=4, queue=8, deadline_s=30)
        began = time.monotonic()
        await asyncio.gather(*[ask(house.port, chat(f"hello {number}")) for number in range(100)])
        assert time.monotonic() - began < 25  # nobody waited for a candidate, which hangs for 30 s
        assert counted(house, "dropped_full") >= 80
        await candidate.stop()


def ruled(do: Literal["mask", "block"]) -> dict[str, Any]:
    rule = Rule(name="cards", detect="payment_card", on=("input",), do=do)
    return {"policies": (Policy(name="p", rules=(rule,)),), "tenant": {"policy": "p"}}


async def test_the_candidate_gets_what_the_content_rules_let_pass(tmp_path: Path) -> None:
    candidate = MockUpstream()
    async with running(tmp_path, **ruled("mask")) as house:
        begin(house, await candidate.start())
        assert (await ask(house.port, chat("card 4111 1111 1111 1111 please"))).status == 200
        await copies(house)
        await candidate.stop()
    assert [one["messages"][-1]["content"] for one in candidate.asked] == ["card [payment_card] please"]


async def test_whom_the_gateway_refuses_the_candidate_does_not_answer(tmp_path: Path) -> None:
    candidate = MockUpstream()
    async with running(tmp_path, **ruled("block"), key={"limits": Limits(tokens_per_minute=1)}) as house:
        begin(house, await candidate.start())
        assert (await ask(house.port, chat("card 4111 1111 1111 1111 please"))).status == 400
        assert (await ask(house.port, chat("hello", max_tokens=40))).status == 429
        assert await copies(house) == []
        await candidate.stop()
    assert (candidate.asked, house.mock.asked) == ([], [])


async def test_nothing_leads_back_to_a_request_that_is_over(tmp_path: Path) -> None:
    """What a request holds is not looked through for circles."""
    async with cascading(tmp_path) as (house, _, _):
        gc.collect()
        gc.disable()
        try:
            for stream in (False, True):
                for _ in range(5):
                    assert (await ask(house.port, chat("easy one", stream=stream))).status == 200
                await house.settled()
            left = [
                one for one in gc.get_objects() if type(one) in {Call, Draft}
            ]  # compiled, calls are not among them, but drafts are
        finally:
            gc.enable()
    assert len(left) <= 1, "the last one's connection may still hold it"
