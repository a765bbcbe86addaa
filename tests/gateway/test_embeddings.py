"""Embeddings go the same way as answers: key, limits, route, rules, cache, record."""

from pathlib import Path

import msgspec
import openai
import pytest

from penstock.core.snapshot import CachePolicy, Limits, Policy, Price, Rule
from tests.gateway.house import KEY, OTHER, House, running
from tests.gateway.raw_client import ask, post

PATH = "/v1/embeddings"


def client_of(house: House, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0, timeout=20)


@pytest.mark.parametrize(
    ("given", "count"), [("one text", 1), (["one", "two"], 2), ([1, 2, 3], 1), ([[1, 2], [3], [4]], 3)]
)
async def test_each_form_of_input(
    tmp_path: Path, given: str | list[str] | list[int] | list[list[int]], count: int
) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        reply = await client.embeddings.create(model="mock", input=given, encoding_format="float", user="u1")
        assert [one.index for one in reply.data] == list(range(count))
        assert reply.usage.prompt_tokens == 7
        assert house.mock.asked[0] == {"model": "mock", "input": given, "encoding_format": "float", "user": "u1"}
        assert house.mock.paths == [PATH]
        await house.settled()
        (record,) = house.exchanges()
        assert (record.operation, record.status, record.outcome) == ("embeddings", 200, "ok")
        assert (record.usage.prompt, record.usage.completion) == (7, 0)
        assert record.user


async def test_the_body_passes_byte_for_byte(tmp_path: Path) -> None:
    body = b'{ "future":{"b":1.50 , "a":[ ]},"dimensions":2,"input":"x",\n"model":"mock"}'
    async with running(tmp_path) as house:
        got = await ask(house.port, post(PATH, body))
        assert got.status == 200
        assert house.mock.bodies == [body]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"mock"}', "input"),
        (b'{"model":"mock","input":[]}', "input"),
        (b'{"model":"mock","input":5}', "input"),
        (b'{"model":"mock","input":["a",1]}', "input"),
        (b'{"model":"mock","input":"a","stream":true}', "stream"),
        (b'{"model":"mock","input":"a","input":"b"}', "input"),
    ],
)
async def test_a_bad_field_is_named(tmp_path: Path, body: bytes, param: str) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post(PATH, body))
        assert (got.status, got.error["param"]) == (400, param)
        assert not house.mock.asked


async def test_keys_and_limits(tmp_path: Path) -> None:
    """The estimate holds no tokens for an answer, since none is generated."""
    limits = Limits(requests_per_minute=3, tokens_per_minute=60)
    async with running(tmp_path, key={"limits": limits}) as house, client_of(house) as client:
        for _ in range(3):
            reply = await client.embeddings.with_raw_response.create(model="mock", input="hi", encoding_format="float")
        assert reply.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError):
            await client.embeddings.create(model="mock", input="hi", encoding_format="float")
        async with client_of(house, OTHER) as other:
            await other.embeddings.create(model="mock", input="hi", encoding_format="float")
        async with client_of(house, "sk-wrong") as wrong:
            with pytest.raises(openai.AuthenticationError):
                await wrong.embeddings.create(model="mock", input="hi", encoding_format="float")
        with pytest.raises(openai.RateLimitError):
            await client.embeddings.create(model="mock", input="long " * 80, encoding_format="float")
        await house.settled()


async def test_the_same_question_is_answered_from_the_cache(tmp_path: Path) -> None:
    route = {"cache": CachePolicy(mode="exact")}
    async with (
        running(tmp_path, route=route, pool={"price": Price(prompt=1000.0)}) as house,
        client_of(house) as client,
    ):
        seen = []
        for who in (client, client, client_of(house, OTHER)):
            reply = await who.embeddings.with_raw_response.create(model="mock", input="hi", encoding_format="float")
            seen.append(reply.headers["x-penstock-cache"])
        assert seen == ["miss", "hit", "miss"]
        assert len(house.mock.asked) == 2
        await house.settled()
        assert [record.cost_nanousd for record in house.exchanges()] == [7_000_000, 0, 7_000_000]


async def test_rules_see_the_texts(tmp_path: Path) -> None:
    rules = (
        Rule(name="cards", detect="payment_card", on=("input",), do="mask"),
        Rule(name="names", words=("mallory",), on=("input", "output"), do="block"),
    )
    async with running(tmp_path, policies=(Policy(name="default", rules=rules),)) as house, client_of(house) as client:
        await client.embeddings.create(model="mock", input=["pay 4111 1111 1111 1111", "b"], encoding_format="float")
        assert "4111" not in msgspec.json.encode(house.mock.asked[0]).decode()
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model="mock", input="mallory", encoding_format="float")
        assert (refused.value.code, refused.value.param) == ("content_filter", "input")
        await house.settled()
        assert [finding.rule for finding in house.exchanges()[0].findings] == ["cards"]


@pytest.mark.parametrize(
    ("text", "code"), [("!status500", "upstream_status"), ("!nothing", None), ("!garbage", "upstream_garbage")]
)
async def test_faults(tmp_path: Path, text: str, code: str | None) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post(PATH, msgspec.json.encode({"model": "mock", "input": text})))
        assert (got.error["code"] if got.status != 200 else None) == code
        await house.settled()
        assert house.exchanges()[0].status == got.status


async def test_an_answer_without_vectors_is_none(tmp_path: Path) -> None:
    """And a chat's answer is none to a request for vectors, nor the other way round."""
    async with running(tmp_path) as house:
        chat = msgspec.json.encode({"model": "mock", "messages": [{"role": "user", "content": "a"}], "input": "b"})
        got = await ask(house.port, post("/v1/chat/completions", chat))
        assert (got.status, got.error["code"]) == (502, "upstream_garbage")
