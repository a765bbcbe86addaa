"""The official client, unmodified, over a mock engine."""

from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from penstock.core.snapshot import Limits
from tests.gateway.house import KEY, OTHER, House, running
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.test_interleave import begin


def client_of(house: House, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0, timeout=20)


def say(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


async def test_a_chat(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="mock", messages=say("good day to you"), user="u1", extra_body={"some_future_field": [1, {"a": None}]}
        )
        reply = raw.parse()
        assert reply.choices[0].message.content == "good day to you"
        assert reply.usage is not None
        assert reply.usage.total_tokens == 15
        assert house.mock.asked[0]["some_future_field"] == [1, {"a": None}]
        assert raw.headers["x-penstock-version"] == "mock:v1.0.0"
        assert raw.headers["x-penstock-digest"] == "sha256:" + "ab" * 32
        assert raw.headers["x-penstock-cache"] == "off"
        await house.settled()
        (record,) = house.exchanges()
        assert record.id == raw.headers["x-penstock-request-id"]
        assert (record.tenant, record.key, record.route, record.pool, record.replica) == (
            "acme",
            "key_1",
            "mock",
            "pool",
            "r0",
        )
        assert (record.status, record.outcome, record.finish, record.stream) == (200, "ok", "stop", False)
        assert (record.usage.prompt, record.usage.completion) == (11, 4)
        assert len(record.user) == 32
        phases = record.phases
        assert (
            0
            < phases.decoded
            <= phases.admitted
            <= phases.dispatched
            <= phases.first_token
            <= phases.last_token
            <= phases.done
        )


@pytest.mark.parametrize(("fault", "ends"), [("", ["stop", "stop"]), ("truncate", ["error", "stop"])])
async def test_two_answers_in_one_stream(tmp_path: Path, fault: str, ends: list[str]) -> None:
    other = MockUpstream()
    other.always = fault
    async with running(tmp_path) as house, client_of(house) as client:
        begin(house, await other.start())
        async with client.chat.completions.stream(model="mock", messages=say("one two three")) as stream:
            final = await stream.get_final_completion()
        assert [choice.index for choice in final.choices] == [0, 1]
        assert sorted(choice.finish_reason for choice in final.choices) == ends
        assert "one two three" in {choice.message.content for choice in final.choices}
        await house.settled()
        await other.stop()


async def test_a_stream(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        stream = await client.chat.completions.create(model="mock", messages=say("one two three"), stream=True)
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == "one two three"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"
        assert house.mock.asked[0]["stream_options"] == {"include_usage": True}
        await house.settled()
        (record,) = house.exchanges()
        assert (record.usage.prompt, record.usage.completion, record.finish) == (11, 4, "stop")
        assert [opened.exchange.id for opened in house.opened()] == [record.id]


async def test_usage_in_a_stream_when_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        stream = await client.chat.completions.create(
            model="mock", messages=say("one two"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 4
        assert chunks[-1].choices == []
        assert sum(chunk.usage is not None for chunk in chunks) == 1


async def test_text_completions(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        await client.completions.create(model="mock", prompt="say this")
        assert house.mock.asked[0]["prompt"] == "say this"
        assert house.exchanges()[0].operation == "completions"


async def test_models(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        assert [model.id async for model in client.models.list()] == ["mock"]
        assert (await client.models.retrieve("mock")).id == "mock"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nothing")


async def test_a_bad_key(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house, "sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="mock", messages=say("hi"))
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["x-penstock-request-id"]
        await house.settled()
        assert house.exchanges()[0].error == "invalid_api_key"


async def test_an_unknown_model(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nothing", messages=say("hi"))
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_model_that_the_key_may_not_use(tmp_path: Path) -> None:
    async with running(tmp_path, key={"models": ("other",)}) as house, client_of(house) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model="mock", messages=say("hi"))
        assert [model.id async for model in client.models.list()] == []
        assert not house.mock.asked


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"stop": {"a": 1}}, "stop"),
        ({"seed": 1.5}, "seed"),
        ({"user": 5}, "user"),
        ({"metadata": [1]}, "metadata"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ],
)
async def test_a_bad_field_is_named(tmp_path: Path, fields: dict[str, object], param: str) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="mock", messages=say("hi"), extra_body=fields)
        assert caught.value.param == param
        assert not house.mock.asked


async def test_a_rate_limit(tmp_path: Path) -> None:
    limits = Limits(requests_per_minute=2, tokens_per_minute=10_000, concurrency=5)
    async with running(tmp_path, key={"limits": limits}) as house, client_of(house) as client:
        first = await client.chat.completions.with_raw_response.create(model="mock", messages=say("hi"))
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-limit-tokens"] == "10000"
        await client.chat.completions.create(model="mock", messages=say("hi"))
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="mock", messages=say("hi"))
        assert int(caught.value.response.headers["retry-after"]) > 0
        assert len(house.mock.asked) == 2
        await house.settled()
        assert [record.status for record in house.exchanges()] == [200, 200, 429]


async def test_tokens_are_reserved_and_then_settled_by_true_use(tmp_path: Path) -> None:
    limits = Limits(tokens_per_minute=400)
    async with running(tmp_path, key={"limits": limits}) as house, client_of(house) as client:
        for _ in range(3):  # each reserves 256 and more, and uses 15
            await client.chat.completions.create(model="mock", messages=say("hi"))
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="mock", messages=say("hi"), max_tokens=390)
        await house.settled()


async def test_one_tenant_is_not_limited_by_another(tmp_path: Path) -> None:
    limits = Limits(requests_per_minute=1)
    async with running(tmp_path, key={"limits": limits}) as house, client_of(house) as client:
        await client.chat.completions.create(model="mock", messages=say("hi"))
        async with client_of(house, OTHER) as other:
            await other.chat.completions.create(model="mock", messages=say("hi"))
