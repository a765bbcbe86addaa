"""What an arm varies beside its model: the way there (a cascade or none) and the content rules; also where it answers beside another arm."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Exchange, Usage
from penstock.core.snapshot import (
    Arm,
    Cascade,
    ExperimentEntry,
    InterleavePlan,
    Policy,
    Replica,
    Route,
    Rule,
    ShadowPlan,
    Target,
)
from tests.gateway.house import House, running, until
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.model_server import ModelServer, models
from tests.gateway.raw_client import ask, chat
from tests.gateway.test_capture import keeping
from tests.gateway.test_cascade import said
from tests.gateway.test_interleave import says

CASCADE = Cascade(first="small", then="large", min_token_logprob=-1.0)
MASKING = Policy(name="masking", rules=(Rule(name="mail", detect="email", on=("input", "output"), do="mask"),))
BLOCKING = Policy(name="blocking", rules=(Rule(name="bad", words=("large",), on=("output",), do="block"),))


@asynccontextmanager
async def arms(
    data: Path, treatment: dict[str, Any], control: dict[str, Any] | None = None, **plan: Any
) -> AsyncIterator[tuple[House, ModelServer, ModelServer]]:
    """A house whose treatment is asked of `large`, perhaps after `small`, by everybody or beside the control on `pool`."""
    paired = bool(plan)
    entry = ExperimentEntry(
        name="w",
        epoch=1,
        seed="w",
        unit="user",
        incumbent="control",
        arms=(
            Arm(**{"name": "control", "pool": "pool", "weight": 0.0, **(control or {})}),
            Arm(**{"name": "new", "pool": "large", "weight": 1.0, "ranges": ((0.0, 1.0),), **treatment}),
        ),
        **plan,
    )
    assert paired or entry.arms[1].ranges
    async with (
        models("small", "large") as (first, then),
        running(data, pools=(first.pool(), then.pool()), policies=(MASKING, BLOCKING)) as house,
    ):
        house.take(routes=(Route(name="mock", to=(Target(pool="pool"),), experiment=entry),))
        yield house, first, then


async def records(house: House) -> list[Exchange]:
    await until(lambda: not house.worker.gateway.shadows.busy)
    await house.settled()
    await house.worker.gateway.journal.committed()
    return house.exchanges()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_arm_may_be_a_cascade(tmp_path: Path, stream: bool) -> None:
    async with arms(tmp_path, {"cascade": CASCADE}) as (house, small, large):
        easy = await ask(house.port, chat("easy one", stream=stream, user="u"))
        hard = await ask(house.port, chat("hard one", stream=stream, user="u"))
        assert (said(easy), said(hard)) == ("small says easy one", "large says hard one")
        assert easy.headers[b"x-penstock-version"] == b"small:v1.0.0"
        assert {easy.headers[b"x-penstock-arm"], hard.headers[b"x-penstock-arm"]} == {b"w/new"}
        found = await records(house)
        assert [(one.arm, one.epoch, one.propensity, one.escalated) for one in found] == [
            ("new", 1, 1.0, False),
            ("new", 1, 1.0, True),
        ]
        assert (len(small.asked), len(large.asked)) == (2, 1)


async def test_an_arms_parameters_hold_for_both_models_of_its_cascade(tmp_path: Path) -> None:
    async with arms(tmp_path, {"cascade": CASCADE, "params": {"temperature": 0.1}}) as (house, small, large):
        await ask(house.port, chat("hard one", user="u", temperature=1.0))
        assert [one["temperature"] for one in (*small.asked, *large.asked)] == [0.1, 0.1]


@pytest.mark.parametrize(("text", "escalated"), [("easy one", False), ("hard one", True)])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_goes_the_way_of_its_own_arm(tmp_path: Path, text: str, escalated: bool, stream: bool) -> None:
    async with arms(tmp_path, {"cascade": CASCADE}, shadow=ShadowPlan(share=1.0)) as (house, small, large):
        assert (await ask(house.port, chat(text, user="u", stream=stream))).headers[b"x-penstock-arm"] == b"w/control"
        [copy] = [one for one in await records(house) if one.pair is not None]
        assert (copy.outcome, copy.arm, copy.escalated) == ("ok", "new", escalated)
        assert copy.pool == ("large" if escalated else "small")
        assert (len(small.asked), len(large.asked)) == (1, int(escalated))
        assert copy.usage.completion == (8 if escalated else 4)
        small_cost, large_cost = 10 * 1000 + 4 * 2000, 10 * 10_000 + 4 * 2000
        assert copy.cost_nanousd == small_cost + (large_cost if escalated else 0)
        if escalated:
            assert copy.tried.completion == 4


async def test_a_controls_cascade_runs_where_a_second_arm_answers_beside_it(tmp_path: Path) -> None:
    control = {"pool": "large", "cascade": CASCADE}
    treatment = {"pool": "pool"}
    async with arms(tmp_path, treatment, control, interleave=InterleavePlan(share=1.0)) as (house, small, large):
        for text, pool in (("easy one", "small"), ("hard one", "large")):
            reply = await ask(house.port, chat(text, user="u"))
            choices = {one["message"]["content"].strip() for one in msgspec.json.decode(reply.body)["choices"]}
            assert len(choices) == 2 and f"{pool} says {text}" in choices
        found = await records(house)
        assert [(one.arm, one.pool, one.escalated) for one in found] == [
            ("control", "small", False),
            ("control", "large", True),
        ]
        assert (len(small.asked), len(large.asked)) == (2, 1)


async def test_a_second_answers_cascade_that_finds_no_place_leaves_the_user_alone(tmp_path: Path) -> None:
    plan = InterleavePlan(share=1.0)
    async with arms(tmp_path, {"cascade": CASCADE}, interleave=plan) as (house, _small, _large):
        large = house.worker.gateway.pools.get("large")
        assert large is not None
        places = []
        while (place := large.try_enter(house.worker.gateway.index.snapshot.tenants[0], 1)) is not None:
            places.append(place)
        reply = await ask(house.port, chat("hard one", user="u"))
        assert (reply.status, len(msgspec.json.decode(reply.body)["choices"])) == (200, 1)
        for place in places:
            large.leave(place, 1, Usage())
        assert house.worker.gateway.meters.cell("penstock_interleave_total", "w", "single_failed").value == 1
        [record] = await records(house)
        assert record.pair is not None and record.pair.outcome == "error"


async def test_a_copy_is_asked_and_read_under_the_rules_of_its_own_arm(tmp_path: Path) -> None:
    async with arms(tmp_path, {"policy": "masking"}, shadow=ShadowPlan(share=1.0)) as (house, _small, large):
        await ask(house.port, chat("easy for ann@example.org", user="u"))
        [copy] = [one for one in await records(house) if one.pair is not None]
        assert "ann@example.org" in str(house.mock.asked[0]["messages"])  # the control's rules let it pass
        assert "ann@example.org" not in str(large.asked[0]["messages"])
        assert ("mail", "mask", "input") in {(one.rule, one.action, one.where) for one in copy.findings}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_rule_of_its_arm_stops_counts_as_stopped(tmp_path: Path, stream: bool) -> None:
    async with arms(tmp_path, {"policy": "blocking"}, shadow=ShadowPlan(share=1.0)) as (house, _small, _large):
        reply = await ask(house.port, chat("easy one", user="u", stream=stream))
        assert reply.status == 200
        [copy] = [one for one in await records(house) if one.pair is not None]
        assert (copy.outcome, copy.finish) == ("ok", "content_filter")
        assert ("bad", "block", "output") in {(one.rule, one.action, one.where) for one in copy.findings}


async def test_a_policy_of_an_arm_that_is_shown_beside_another_is_its_own(tmp_path: Path) -> None:
    other = await says("write to bob@example.org")
    async with arms(tmp_path, {"policy": "masking"}, interleave=InterleavePlan(share=1.0)) as (house, _small, _large):
        snapshot = house.worker.gateway.index.snapshot
        pools = tuple(
            msgspec.structs.replace(
                pool, replicas=(msgspec.structs.replace(pool.replicas[0], url=f"http://127.0.0.1:{other.port}"),)
            )
            if pool.name == "large"
            else pool
            for pool in snapshot.pools
        )
        house.take(pools=pools)
        reply = await ask(house.port, chat("mail bob@example.org", user="u"))
        texts = [one["message"]["content"] for one in msgspec.json.decode(reply.body)["choices"]]
        assert len(texts) == 2 and sum("bob@example.org" in text for text in texts) == 1  # the control's own words
        [record] = await records(house)
        assert "mail" in {one.rule for one in record.findings}
    await other.drain(0)


async def test_each_experiment_has_its_own_copies_in_flight(tmp_path: Path) -> None:
    candidate = MockUpstream()
    candidate.always = "!wait"
    url = await candidate.start()
    async with arms(tmp_path, {}, shadow=ShadowPlan(share=1.0, in_flight=1, queue=2)) as (house, _small, _large):
        snapshot = house.worker.gateway.index.snapshot
        route = snapshot.routes[0]
        assert route.experiment is not None
        second = msgspec.structs.replace(
            route, name="other", experiment=msgspec.structs.replace(route.experiment, name="x", seed="x")
        )
        pools = tuple(
            msgspec.structs.replace(one, replicas=(Replica(id="c", url=url),)) if one.name == "large" else one
            for one in snapshot.pools
        )
        house.take(pools=pools, routes=(route, second))
        for model in ("mock", "other"):
            for number in range(3):
                assert (await ask(house.port, chat(f"easy {number}", model=model, user="u"))).status == 200
        await until(lambda: candidate.running == 2)  # one of each
        meters = house.worker.gateway.meters
        assert [meters.cell("penstock_shadow_total", name, "dropped_full").value for name in ("w", "x")] == [0, 0]
        candidate.always = ""
        candidate.gate.set()
        assert len([one for one in await records(house) if one.pair is not None]) == 6
    await candidate.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copys_answer_is_kept_where_the_users_is(tmp_path: Path, stream: bool) -> None:
    async with keeping(tmp_path) as kept, models("small", "large") as (_first, then):
        house = kept.house
        arms_ = (
            Arm(name="control", pool="pool", weight=0.0),
            Arm(name="new", pool="large", weight=1.0, ranges=((0.0, 1.0),)),
        )
        entry = ExperimentEntry(
            name="w", epoch=1, seed="w", unit="user", incumbent="control", arms=arms_, shadow=ShadowPlan(share=1.0)
        )
        route = Route(name="mock", to=(Target(pool="pool"),), experiment=entry)
        house.take(pools=(*house.worker.gateway.index.snapshot.pools, then.pool()), routes=(route,))
        await ask(house.port, chat("easy one", user="u", stream=stream))
        found = await records(house)
        [user] = [one for one in found if one.pair is None]
        [copy] = [one for one in found if one.pair is not None]
        assert kept.said(user).messages == kept.said(copy).messages == (("user", "easy one"),)
        assert "".join(text for _, _, text in kept.said(copy).replies).strip() == "large says easy one"
        assert user.content is not None and copy.content is not None
        assert copy.content.key == user.content.key  # both are forgotten with the same subject
