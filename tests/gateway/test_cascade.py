"""A small model first, a larger one where the small one is not sure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Exchange, Usage
from penstock.core.snapshot import CachePolicy, Cascade, Limits, Policy, Rule
from tests.gateway.house import House, running, until
from tests.gateway.model_server import ModelServer, models
from tests.gateway.raw_client import Got, ask, chat, post


@asynccontextmanager
async def cascading(
    data: Path, *, cache: CachePolicy | None = None, small: dict[str, Any] | None = None, **rule: Any
) -> AsyncIterator[tuple[House, ModelServer, ModelServer]]:
    plan = Cascade(**{"first": "small", "then": "large", "min_token_logprob": -1.0, **rule})
    route = {"cascade": plan, "cache": cache or CachePolicy()}
    async with (
        models("small", "large") as (first, then),
        running(data, route=route, pools=(first.pool(**(small or {})), then.pool())) as house,
    ):
        yield house, first, then


def said(answer: Got) -> str:
    if answer.headers[b"content-type"].startswith(b"text/event-stream"):
        events = [line[6:] for line in answer.body.split(b"\n") if line.startswith(b"data: {")]
        choices = [msgspec.json.decode(event)["choices"] for event in events]
        return "".join(one[0]["delta"].get("content", "") for one in choices if one).strip()
    choice = msgspec.json.decode(answer.body)["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def text(prompt: str) -> bytes:
    return post("/v1/completions", msgspec.json.encode({"model": "mock", "prompt": prompt}))


async def last(house: House) -> Exchange:
    await house.settled()
    return house.exchanges()[-1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_sure_answer_is_given_and_an_unsure_one_is_not(tmp_path: Path, stream: bool) -> None:
    async with cascading(tmp_path) as (house, small, large):
        easy = await ask(house.port, chat("easy one", stream=stream))
        assert said(easy) == "small says easy one"
        assert easy.headers[b"x-penstock-version"] == b"small:v1.0.0"
        assert (b'logprob"' not in easy.body) and not large.asked
        record = await last(house)
        assert (record.pool, record.escalated, record.usage) == ("small", False, Usage(10, 4))
        assert record.cost_nanousd == 10 * 1000 + 4 * 2000
        assert (small.asked[0]["model"], small.asked[0]["logprobs"]) == ("small", True)

        hard = await ask(house.port, chat("hard one", stream=stream))
        assert said(hard) == "large says hard one"
        assert hard.headers[b"x-penstock-version"] == b"large:v1.0.0"
        assert large.asked[0]["model"] == "large"
        assert "logprobs" not in large.asked[0]
        record = await last(house)
        assert (record.pool, record.digest, record.replica) == ("large", "sha256:large", "large-0")
        assert (record.escalated, record.outcome, record.status) == (True, "ok", 200)
        assert record.usage == Usage(record.tried.prompt + 10, record.tried.completion + 4)
        assert record.tried.completion == 4
        first = record.tried.prompt * 1000 + record.tried.completion * 2000
        assert record.cost_nanousd == first + 10 * 10000 + 4 * 2000
        cells = house.worker.gateway.meters
        assert [cells.cell("penstock_cascade_total", "mock", r).value for r in ("first", "escalated")] == [1, 1]


async def test_log_probabilities_that_were_asked_for_stay(tmp_path: Path) -> None:
    async with cascading(tmp_path) as (house, _, _):
        for stream in (False, True):
            got = await ask(house.port, chat("easy one", stream=stream, logprobs=True))
            assert got.body.count(b'"logprob"') == 4


async def test_completions_cascade_too(tmp_path: Path) -> None:
    async with cascading(tmp_path) as (house, small, _):
        assert said(await ask(house.port, text("easy one"))) == "small says easy one"
        assert said(await ask(house.port, text("hard one"))) == "large says hard one"
        assert small.asked[0]["logprobs"] == 0


async def test_a_stream_is_decided_on_its_first_tokens_and_then_flows(tmp_path: Path) -> None:
    async with cascading(tmp_path, hold_tokens=3) as (house, small, large):
        small.gate = asyncio.Event()
        request = asyncio.create_task(ask(house.port, chat("a b c hard", stream=True)))
        await until(lambda: any(record.exchange.pool == "small" for record in house.opened()))
        assert not request.done()
        small.gate.set()
        assert said(await request) == "small says a b c hard"
        assert b'"logprob"' not in (await request).body
        assert not large.asked
        assert said(await ask(house.port, chat("hard one", stream=True))) == "large says hard one"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["!400", "!500", "!break", "!silent"])
async def test_whatever_keeps_the_first_from_answering_leads_to_the_second(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    async with cascading(tmp_path) as (house, _, _):
        got = await ask(house.port, chat(f"{fault} now", stream=stream))
        assert (got.status, said(got)) == (200, f"large says {fault} now")
        record = await last(house)
        assert (record.escalated, record.pool, record.outcome) == (True, "large", "ok")


async def test_a_full_first_pool_leads_to_the_second(tmp_path: Path) -> None:
    small = {"max_in_flight": 1, "max_waiting": 0, "max_wait_s": 0.0}
    async with cascading(tmp_path, small=small, hold_tokens=3) as (house, first, _):
        first.gate = asyncio.Event()
        slow = asyncio.create_task(ask(house.port, chat("a b c d", stream=True)))
        await until(lambda: bool(house.opened()))
        assert said(await ask(house.port, chat("another"))) == "large says another"
        first.gate.set()
        assert said(await slow) == "small says a b c d"


async def test_rules_on_texts_and_ends(tmp_path: Path) -> None:
    rule: dict[str, Any] = {"min_token_logprob": None, "patterns": ("(?i)SORRY",)}
    async with cascading(tmp_path, **rule) as (house, small, _):
        assert said(await ask(house.port, chat("hard one"))) == "small says hard one"
        assert "logprobs" not in small.asked[0]
        assert said(await ask(house.port, chat("sorry one"))) == "large says sorry one"
        assert said(await ask(house.port, chat("a b c", max_tokens=3))) == "large says a b c"


@pytest.mark.parametrize("stream", [False, True])
async def test_content_rules_look_at_what_is_given(tmp_path: Path, stream: bool) -> None:
    rule = Rule(name="words", words=("easy",), on=("output",), do="mask")
    async with cascading(tmp_path) as (house, _, _):
        house.take(policies=(Policy(name="default", rules=(rule,)),))
        got = await ask(house.port, chat("easy one", stream=stream))
        assert b"easy" not in got.body
        assert said(got).startswith("small says")
        assert said(got).endswith("one")
        assert [(one.rule, one.action) for one in (await last(house)).findings] == [("words", "mask")]


async def test_who_leaves_while_the_first_is_asked_stops_it(tmp_path: Path) -> None:
    async with cascading(tmp_path, hold_tokens=100) as (house, small, large):
        small.gate = asyncio.Event()
        request = asyncio.create_task(ask(house.port, chat("a b c d e", stream=True)))
        await until(lambda: bool(small.asked))
        request.cancel()
        await until(lambda: len(house.exchanges()) == 1)
        record = await last(house)
        assert (record.outcome, record.pool, record.escalated) == ("cancelled", "small", False)
        assert not large.asked
        small.gate.set()


async def test_tools_and_the_control_share_do_not_go_to_the_first(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    async with cascading(tmp_path, control_share=0.5) as (house, small, large):
        house.worker.gateway.draw = lambda: 0.49
        assert said(await ask(house.port, chat("easy one"))) == "large says easy one"
        record = await last(house)
        assert (record.escalated, record.propensity) == (False, 0.5)
        house.worker.gateway.draw = lambda: 0.51
        assert said(await ask(house.port, chat("easy one"))) == "small says easy one"
        await ask(house.port, chat("easy one", tools=[tool]))
        assert (len(small.asked), len(large.asked), len(house.mock.asked)) == (1, 1, 1)


async def test_a_kept_answer_tells_who_gave_it(tmp_path: Path) -> None:
    async with cascading(tmp_path, cache=CachePolicy(mode="exact")) as (house, small, large):
        for question in ("easy one", "hard one"):
            first = await ask(house.port, chat(question, temperature=0))
            again = await ask(house.port, chat(question, temperature=0))
            assert again.headers[b"x-penstock-cache"] == b"hit"
            assert again.headers[b"x-penstock-version"] == first.headers[b"x-penstock-version"]
            assert again.body == first.body
        assert (len(small.asked), len(large.asked)) == (2, 1)
        record = await last(house)
        assert (record.cache, record.version, record.cost_nanousd, record.usage) == ("hit", "large:v1.0.0", 0, Usage())


async def test_both_are_reserved_and_settled(tmp_path: Path) -> None:
    async with cascading(tmp_path) as (house, _, _):
        keys = house.worker.gateway.index.snapshot.keys
        limited = msgspec.structs.replace(keys[0], limits=Limits(tokens_per_minute=1000))
        house.take(keys=(limited, *keys[1:]))
        refused = await ask(house.port, chat("hard one", max_tokens=500))
        assert refused.status == 429  # twice 500 and the prompts are more than 1,000
        assert (await ask(house.port, chat("hard one", max_tokens=300))).status == 200
        await house.settled()
