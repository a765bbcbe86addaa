"""Rules choose the pool, long chats are trimmed, answers' lengths are limited."""

from pathlib import Path
from typing import Any

import msgspec

from penstock.core.snapshot import Arm, CachePolicy, ChooseRule, ExperimentEntry, Limits, Target, Trim
from tests.gateway.house import House, running
from tests.gateway.model_server import models
from tests.gateway.raw_client import ask, chat, post
from tests.gateway.test_cascade import last, said

TURNS = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "the first question " * 20},
    {"role": "assistant", "content": "the first answer"},
    {"role": "user", "content": "the second"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    {"role": "tool", "content": "42", "tool_call_id": "1"},
    {"role": "assistant", "content": "the second answer"},
    {"role": "user", "content": "the third"},
]


async def test_the_first_rule_that_fits_names_the_pool_and_the_model(tmp_path: Path) -> None:
    rules = (
        ChooseRule(pool="large", headers={"x-tier": "gold"}),
        ChooseRule(pool="small", max_prompt_tokens=5, last_user="^short"),
    )
    async with (
        models("small", "large") as (small, large),
        running(tmp_path, route={"choose": rules}, pools=(small.pool(), large.pool())) as house,
    ):
        assert said(await ask(house.port, chat("short one"))) == "small says short one"
        assert small.asked[0]["model"] == "small"
        record = await last(house)
        assert (record.pool, record.version, record.digest) == ("small", "small:v1.0.0", "sha256:small")
        body = msgspec.json.encode({"model": "mock", "messages": [{"role": "user", "content": "short one"}]})
        gold = await ask(house.port, post("/v1/chat/completions", body, more=b"X-Tier: gold\r\n"))
        assert said(gold) == "large says short one"
        assert gold.headers[b"x-penstock-digest"] == b"sha256:large"
        await ask(house.port, chat("short " + "and long " * 10))
        assert len(house.mock.asked) == 1


async def test_a_rule_comes_before_an_experiment(tmp_path: Path) -> None:
    arms = (Arm(name="a", pool="pool", weight=1.0),)
    experiment = ExperimentEntry(name="e", epoch=1, seed="s", unit="user", arms=arms, incumbent="a")
    route = {"choose": (ChooseRule(pool="small", last_user="short"),), "experiment": experiment}
    async with models("small") as (small,), running(tmp_path, route=route, pools=(small.pool(),)) as house:
        await ask(house.port, chat("short one", user="u"))
        ruled = await last(house)
        await ask(house.port, chat("another", user="u"))
        other = await last(house)
        assert [(one.pool, one.arm, one.epoch) for one in (ruled, other)] == [("small", "", 0), ("pool", "a", 1)]


async def sent(house: House, **body: Any) -> dict[str, Any]:
    asked = {"model": "mock", "messages": [{"role": "user", "content": "hello"}], **body}
    got = await ask(house.port, post("/v1/chat/completions", msgspec.json.encode(asked)))
    assert got.status == 200, got.body
    return house.mock.asked[-1]


async def test_the_oldest_turns_are_left_out(tmp_path: Path) -> None:
    async with running(tmp_path, route={"trim": Trim(budget_tokens=80), "cache": CachePolicy(mode="exact")}) as house:
        assert (await sent(house, messages=TURNS, seed=3))["messages"] == [TURNS[0], *TURNS[3:]]
        record = await last(house)
        assert record.trimmed == 1
        got = await ask(
            house.port, post("/v1/chat/completions", msgspec.json.encode({"model": "mock", "messages": TURNS}))
        )
        assert got.headers[b"x-penstock-trimmed"] == b"1"
        assert (await sent(house, messages=TURNS[2:]))["messages"] == TURNS[2:]
        short = await ask(house.port, chat("hello"))
        assert b"x-penstock-trimmed" not in short.headers
        cell = house.worker.gateway.meters.cell("penstock_trimmed_tokens_total", "mock")
        assert cell.value > 150


async def test_what_is_reserved_is_of_what_is_left(tmp_path: Path) -> None:
    limits = {"limits": Limits(tokens_per_minute=1000)}
    async with running(tmp_path, route={"trim": Trim(budget_tokens=1)}, key=limits) as house:
        await sent(house, messages=[{"role": "user", "content": "word " * 4000}, *TURNS], max_tokens=5)
        await house.settled()


async def test_limits_of_answers(tmp_path: Path) -> None:
    async with running(tmp_path, route={"max_tokens": 50}) as house:
        assert (await sent(house))["max_tokens"] == 50
        assert (await sent(house, max_tokens=7))["max_tokens"] == 7
        assert (await sent(house, max_tokens=700))["max_tokens"] == 50
        both = await sent(house, max_tokens=700, max_completion_tokens=90)
        assert (both["max_tokens"], both["max_completion_tokens"]) == (50, 50)
        one = await sent(house, max_completion_tokens=20)
        assert one["max_completion_tokens"] == 20
        assert "max_tokens" not in one


async def test_a_weightless_target_can_be_chosen(tmp_path: Path) -> None:
    route = {
        "to": (Target(pool="pool"), Target(pool="small", weight=0.0)),
        "choose": (ChooseRule(pool="small", min_messages=8),),
    }
    async with models("small") as (small,), running(tmp_path, route=route, pools=(small.pool(),)) as house:
        body = msgspec.json.encode({"model": "mock", "messages": TURNS})
        assert said(await ask(house.port, post("/v1/chat/completions", body))) == "small says the third"
