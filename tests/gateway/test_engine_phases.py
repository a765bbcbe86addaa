"""What engines tell of their phases, and which replicas were asked in vain: in the record, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Exchange
from penstock.core.snapshot import CachePolicy
from penstock.journal.spans import spans_of
from penstock.net.server import Reply, Request, Server
from tests.engine.conftest import Running, running_engine
from tests.gateway.house import KEY, House, running
from tests.gateway.mock_upstream import JSON, SSE, chunk, usage_chunk, whole
from tests.gateway.raw_client import ask, chat
from tests.gateway.test_cascade import cascading
from tests.gateway.test_elsewhere import _well, hedging, with_spare
from tests.gateway.test_resume import bed
from tests.gateway.test_resume import stream as told_stream

STARTER = Path("examples/support_bot/models/support-bot-v1.1.0/openvino-int8")
OURS: dict[str, Any] = {"dialect": "penstock", "model": "support-bot"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@pytest.fixture(scope="module")
def starter() -> Iterator[Running]:
    with running_engine(STARTER, model="support-bot", kv_cache_mb=64) as engine:
        yield engine


async def say(house: House, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"model": "mock", "messages": [{"role": "user", "content": "Where is my order?"}], "max_tokens": 24}
        return await client.post(
            f"{house.url}/v1/chat/completions", json=body | more, headers={"authorization": f"Bearer {KEY}"}
        )


def check(exchange: Exchange) -> None:
    """The engine's time is within the gateway's, and so are its spans, without gaps, each below the model's call."""
    told, phases = exchange.engine, exchange.phases
    assert told is not None
    assert told.preprocess > 0 and told.queue > 0 and told.prefill > 0 and told.decode > 0 and told.postprocess > 0
    assert sum(length for _, length in told.lengths()) <= phases.last_token - phases.dispatched
    assert told.preprocess + told.queue + told.prefill <= phases.first_token - phases.dispatched
    spans = spans_of(exchange)
    (call,) = [span for span in spans if span.kind == "client"]
    below = [span for span in spans if span.parent == call.id]
    assert [span.name.removeprefix("engine ") for span in below] == [name for name, _ in told.lengths()]
    assert [span.end_ns - span.start_ns for span in below] == [length for _, length in told.lengths()]
    assert call.start_ns <= below[0].start_ns and below[-1].end_ns <= call.end_ns
    assert all(one.end_ns == other.start_ns for one, other in pairwise(below))
    if exchange.stream:
        assert below[2].end_ns <= call.events[0].at_ns, "the first token was made before it was seen"


@pytest.mark.engine
async def test_the_engine_s_time_lies_within_the_gateway_s(starter: Running, tmp_path: Path) -> None:
    usage = {"stream_options": {"include_usage": True}}
    async with running(tmp_path, replicas=0, others=(starter.url,), pool=OURS) as house:
        answers = [await say(house), await say(house, stream=True), await say(house, stream=True, **usage)]
        together = await asyncio.gather(*[say(house, stream=number % 2 == 0) for number in range(6)])
        for answer in (*answers, *together):
            assert answer.status_code == 200
            assert "phases" not in answer.text and "x-penstock-phases" not in answer.headers
        exchanges = house.exchanges()
        assert len(exchanges) == 9
        for exchange in exchanges:
            check(exchange)
        assert all(one.exchange.engine is None for one in house.opened())


@pytest.mark.engine
async def test_a_stream_that_can_be_resumed_has_them_and_a_cached_one_has_not(starter: Running, tmp_path: Path) -> None:
    route = {"resume": True, "cache": CachePolicy(mode="exact", ttl_s=60)}
    wish = {"stream": True, "temperature": 0, "stream_options": {"include_usage": True}}
    async with running(tmp_path, replicas=0, others=(starter.url,), pool=OURS, route=route) as house:
        first = await say(house, **wish)
        again = await say(house, **wish)
        assert (first.headers["x-penstock-cache"], again.headers["x-penstock-cache"]) == ("miss", "hit")
        assert again.text == first.text
        assert '"usage":{' in again.text and ":phases" not in again.text
        asked, replayed = house.exchanges()
        check(asked)
        assert replayed.engine is None
        assert not [span for span in spans_of(replayed) if span.name.startswith("engine ")]


async def test_engines_of_other_dialects_are_not_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        assert (await say(house)).status_code == 200
        assert (await say(house, stream=True)).status_code == 200
        assert all(b"x-penstock-phases" not in head for head in house.mock.heads)
        assert [(one.engine, one.tries) for one in house.exchanges()] == [(None, ()), (None, ())]


async def test_an_engine_that_tells_nonsense_is_not_believed(tmp_path: Path) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        assert request.headers[b"x-penstock-phases"] == b"tell"
        if not json.loads(request.body).get("stream"):
            reply.send(200, [*JSON, (b"x-penstock-phases", b"[-1]")], whole("hi", USAGE))
            return
        reply.start(200, SSE)
        reply.write(chunk("hi"))
        reply.write(chunk(None, "stop"))
        reply.end(b':phases ["x"]\n' + usage_chunk(USAGE) + b"data: [DONE]\n\n")

    upstream = Server(answer)
    await upstream.start("127.0.0.1", 0)
    async with running(
        tmp_path, replicas=0, others=(f"http://127.0.0.1:{upstream.port}",), pool={"dialect": "penstock"}
    ) as house:
        for stream in (False, True):
            got = await say(house, stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
            assert got.status_code == 200
            assert "phases" not in got.text
        assert [(one.engine, one.usage.completion) for one in house.exchanges()] == [(None, 2), (None, 2)]
    await upstream.drain(1.0)


# -- replicas that were asked in vain --------------------------------------------------------------------------------------


def check_tries(exchange: Exchange, *expected: tuple[str, str, str]) -> None:
    """(How, replica, error) of each; they lie within the request, and so do their spans, beside the one that answered."""
    assert tuple((one.how, one.replica, one.error) for one in exchange.tries) == expected
    assert all(0 < one.begin <= one.end <= exchange.phases.done for one in exchange.tries)
    request, *rest = spans_of(exchange)
    calls = [span for span in rest if span.kind == "client"]
    assert len(calls) == len(expected) + 1
    assert {span.parent for span in calls} == {request.id}
    assert len({span.id for span in calls}) == len(calls)
    for span, (how, replica, error) in zip(calls[1:], expected, strict=True):
        assert span.attributes["penstock.try"] == how
        assert span.attributes["penstock.replica"] == replica
        assert span.attributes.get("error.type", "") == error == (span.problem or error)
        assert span.failed == (how in {"failed", "broken"})


@pytest.mark.parametrize(("fault", "error"), [("!status503", "503"), ("!reset", "upstream_reset")])
async def test_an_attempt_that_failed_is_noted(tmp_path: Path, fault: str, error: str) -> None:
    async with running(tmp_path, replicas=2, pool={"affinity": "off"}) as house:
        house.worker.gateway.draw = lambda: 0.0
        _well(house.mocks[1])
        assert (await ask(house.port, chat(fault))).status == 200
        await house.settled()
        (record,) = house.exchanges()
        assert record.attempts == 2
        check_tries(record, ("failed", "r0", record.tries[0].error))
        assert record.tries[0].end <= record.phases.dispatched
        assert record.tries[0].error == error or fault == "!reset"


async def test_the_last_one_in_vain_is_the_call_itself(tmp_path: Path) -> None:
    async with running(tmp_path, replicas=2, pool={"affinity": "off"}) as house:
        assert (await ask(house.port, chat("!status500"))).status == 502
        await house.settled()
        (record,) = house.exchanges()
        assert (record.attempts, len(record.tries)) == (2, 1)


async def test_a_hedge_s_loser_is_noted(tmp_path: Path) -> None:
    async with hedging(tmp_path) as house:
        _well(house.mocks[1])
        assert (await ask(house.port, chat("!hang there"))).status == 200
        await house.settled()
        (record,) = house.exchanges()
        check_tries(record, ("hedge", "r0", ""))
        assert record.tries[0].begin < record.phases.dispatched < record.tries[0].end


async def test_the_pool_that_a_route_falls_back_from_is_noted(tmp_path: Path) -> None:
    async with with_spare(tmp_path) as (house, other):
        _well(other)
        assert (await ask(house.port, chat("!status500"))).status == 200
        await house.settled()
        (record,) = house.exchanges()
        check_tries(record, ("failed", "r0", record.tries[0].error))
        assert (record.tries[0].pool, record.pool) == ("pool", "spare")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cascade_s_first_model_is_noted(tmp_path: Path, stream: bool) -> None:
    async with cascading(tmp_path) as (house, _, _):
        await ask(house.port, chat("easy one", stream=stream))
        await ask(house.port, chat("hard one", stream=stream))
        await house.settled()
        easy, hard = house.exchanges()
        assert easy.tries == ()
        check_tries(hard, ("unconvincing", "small-0", ""))
        assert (hard.tries[0].pool, hard.pool) == ("small", "large")


async def test_replicas_that_broke_a_stream_off_are_noted(tmp_path: Path) -> None:
    async with bed(tmp_path) as (house, speakers):
        speakers[0].plan = speakers[1].plan = [(4, "reset"), (2, "error")]
        assert (await ask(house.port, told_stream())).status == 200
        await house.settled()
        (record,) = house.exchanges()
        assert record.resumed == 2
        first, second = record.tries
        check_tries(record, ("broken", first.replica, first.error), ("broken", second.replica, second.error))
        assert first.replica != second.replica
        assert first.begin == record.phases.dispatched and second.begin == first.end


def test_a_resumed_stream_has_the_last_engine_s_phases_at_its_end() -> None:
    from tests.journal.sinks.records import served

    exchange = served(1, engine=EnginePhases(1000, 1000, 1000, 5000, 0), resumed=1, stream=True)
    spans = [span for span in spans_of(exchange) if span.name.startswith("engine ")]
    assert spans[-1].end_ns == spans_of(exchange)[0].start_ns + exchange.phases.last_token
