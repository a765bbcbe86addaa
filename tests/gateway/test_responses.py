"""The Responses API: the official client over a mock engine that speaks chat completions alone."""

from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from penstock.core.snapshot import CachePolicy, Limits, Policy, Rule
from tests.gateway.house import KEY, OTHER, House, running, until
from tests.gateway.raw_client import ask, post
from tests.gateway.speaker import Break
from tests.gateway.test_arms import experiment
from tests.gateway.test_resume import SAID, TEXT, bed
from tests.gateway.test_semantic import FIRST, SAME, semantic

PATH = "/v1/responses"
TOOL: Any = {
    "type": "function",
    "name": "lookup",
    "description": "Finds an order.",
    "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}},
    "strict": True,
}


def client_of(house: House, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0, timeout=20)


def body(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "mock", "input": "hi", **fields})


async def test_a_text(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        raw = await client.responses.with_raw_response.create(
            model="mock",
            input="good day to you",
            instructions="Be kind.",
            max_output_tokens=50,
            temperature=0.5,
            metadata={"team": "a"},
            user="u1",
            store=False,
            extra_body={"seed": 5, "future": {"b": [1]}},
        )
        reply = raw.parse()
        assert (reply.status, reply.output_text, reply.model) == ("completed", "good day to you", "mock")
        assert reply.usage is not None
        assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (11, 4, 15)
        assert (reply.instructions, reply.max_output_tokens, reply.temperature) == ("Be kind.", 50, 0.5)
        assert reply.metadata == {"team": "a"}
        assert house.mock.paths == ["/v1/chat/completions"]
        assert house.mock.asked == [
            {
                "model": "mock",
                "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "good day to you"}],
                "max_completion_tokens": 50,
                "temperature": 0.5,
                "metadata": {"team": "a"},
                "user": "u1",
                "seed": 5,
                "future": {"b": [1]},
            }
        ]
        name = raw.headers["x-penstock-request-id"]
        assert reply.id == f"resp_{name.removeprefix('req_')}"
        await house.settled()
        (record,) = house.exchanges()
        assert (record.id, record.operation, record.status, record.outcome) == (name, "responses", 200, "ok")
        assert (record.usage.prompt, record.usage.completion, record.finish) == (11, 4, "stop")
        assert record.user


async def test_a_conversation_with_calls_and_what_they_led_to(tmp_path: Path) -> None:
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Where is it?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "lookup", "arguments": "{}"},
        {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "lookup", "arguments": "[]"},
        {"type": "function_call_output", "call_id": "c1", "output": "sent"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "lost"}]},
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
                {"type": "input_text", "text": "and now"},
            ],
        },
    ]
    async with running(tmp_path) as house, client_of(house) as client:
        await client.responses.create(
            model="mock", input=items, tools=[TOOL], tool_choice={"type": "function", "name": "lookup"}
        )
        asked = house.mock.asked[0]
        call = {"type": "function", "function": {"name": "lookup", "arguments": "{}"}}
        assert asked["messages"] == [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Where is it?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "c1", **call},
                    {"id": "c2", "type": "function", "function": {"name": "lookup", "arguments": "[]"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sent"},
            {"role": "tool", "tool_call_id": "c2", "content": "lost"},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                    {"type": "text", "text": "and now"},
                ],
            },
        ]
        assert asked["tools"] == [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}]
        assert asked["tool_choice"] == {"type": "function", "function": {"name": "lookup"}}


async def test_the_form_of_the_answer(tmp_path: Path) -> None:
    form: Any = {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}
    async with running(tmp_path) as house, client_of(house) as client:
        await client.responses.create(
            model="mock",
            input="hi",
            text={"format": form, "verbosity": "low"},
            reasoning={"effort": "low"},
            top_logprobs=2,
            parallel_tool_calls=False,
        )
        asked = house.mock.asked[0]
        schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
        assert asked["response_format"] == {"type": "json_schema", "json_schema": schema}
        assert (asked["verbosity"], asked["reasoning_effort"]) == ("low", "low")
        assert (asked["logprobs"], asked["top_logprobs"], asked["parallel_tool_calls"]) == (True, 2, False)


async def test_a_stream(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        stream = await client.responses.create(model="mock", input="one two three", stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            *["response.output_text.delta"] * 3,
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two three"
        last = events[-1]
        assert last.type == "response.completed"
        assert (last.response.status, last.response.output_text) == ("completed", "one two three")
        assert last.response.usage is not None
        assert last.response.usage.output_tokens == 4
        await house.settled()
        (record,) = house.exchanges()
        assert (record.operation, record.stream, record.outcome, record.usage.completion) == (
            "responses",
            True,
            "ok",
            4,
        )
        assert [opened.exchange.operation for opened in house.opened()] == ["responses"]


async def test_the_clients_own_stream_helper(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        async with client.responses.stream(model="mock", input='!tool lookup {"order":5}', tools=[TOOL]) as stream:
            seen = [event.type async for event in stream]
            final = await stream.get_final_response()
        message, call = final.output
        assert message.type == "message"
        assert call.type == "function_call"
        assert (call.name, call.call_id, call.arguments) == ("lookup", "call_7", '{"order":5}')
        assert seen.count("response.function_call_arguments.delta") == 2
        assert seen.count("response.function_call_arguments.done") == 1
        assert seen.count("response.output_item.added") == seen.count("response.output_item.done") == 2


async def test_a_call_in_a_whole_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        reply = await client.responses.create(model="mock", input='!tool lookup {"order":5}', tools=[TOOL])
        assert reply.output_text == "I look. "
        call = reply.output[1]
        assert call.type == "function_call"
        assert (call.name, call.call_id, call.arguments, call.status) == (
            "lookup",
            "call_7",
            '{"order":5}',
            "completed",
        )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "video"}, {"type": "input_text"}]}]},
            "input[0].content[0].type",
        ),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
async def test_what_is_not_done_is_refused_by_name(tmp_path: Path, fields: dict[str, Any], param: str) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post(PATH, body(**fields)))
        assert (got.status, got.error["param"]) == (400, param)
        assert not house.mock.asked
        await house.settled()
        assert [(record.operation, record.status) for record in house.exchanges()] == [("responses", 400)]


async def test_fields_that_ask_for_nothing_are_taken(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        "previous_response_id": None,
        "background": False,
        "truncation": "disabled",
        "store": False,
        "include": [],
    }
    async with running(tmp_path) as house:
        assert (await ask(house.port, post(PATH, body(**nothing)))).status == 200
        assert set(house.mock.asked[0]) == {"model", "messages"}


async def test_an_engines_refusal_names_the_field_as_the_client_knows_it(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post(PATH, body(input="!status400")))
        assert (got.status, got.error["param"], got.error["code"]) == (400, "input", "context_length_exceeded")


@pytest.mark.parametrize("fault", ["!truncate two three", "!error two three", "!nodone two three"])
async def test_a_stream_that_breaks_ends_as_failed(tmp_path: Path, fault: str) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        events = [event async for event in await client.responses.create(model="mock", input=fault, stream=True)]
        last = events[-1]
        assert last.type == "response.failed"
        assert last.response.status == "failed"
        assert last.response.error is not None
        assert last.response.error.message
        assert not any(event.type == "response.completed" for event in events)
        await house.settled()
        assert house.exchanges()[0].outcome == "crashed"


async def test_a_client_that_leaves_stops_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path) as house, client_of(house) as client:
        stream = await client.responses.create(model="mock", input="!stall two three", stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        await until(lambda: house.mock.left == 1)
        await house.settled()
        assert house.exchanges()[0].outcome == "cancelled"


async def test_key_limit_and_cache(tmp_path: Path) -> None:
    limits = Limits(requests_per_minute=4)
    route = {"cache": CachePolicy(mode="exact")}
    async with running(tmp_path, key={"limits": limits}, route=route) as house, client_of(house) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="sk-wrong").responses.create(model="mock", input="hi")
        seen: list[str] = []
        texts: list[str] = []
        for _ in range(2):
            raw = await client.responses.with_raw_response.create(model="mock", input="a b", temperature=0)
            seen.append(raw.headers["x-penstock-cache"])
            texts.append(raw.parse().output_text)
        for _ in range(2):
            stream = await client.responses.create(model="mock", input="a b", temperature=0, stream=True)
            events = [event async for event in stream]
            assert events[-1].type == "response.completed"
            assert events[-1].response.usage is not None
            texts.append(events[-1].response.output_text)
        assert (seen, set(texts)) == (["miss", "hit"], {"a b"})
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="mock", input="hi")
        raw = await client_of(house, OTHER).responses.with_raw_response.create(model="mock", input="a b", temperature=0)
        assert raw.headers["x-penstock-cache"] == "miss"
        await house.settled()
        assert [record.cache for record in house.exchanges()] == ["off", "miss", "hit", "miss", "hit", "off", "miss"]


@pytest.mark.parametrize("dialect", ["penstock", "vllm"])
@pytest.mark.parametrize("kind", ["reset", "error"])
async def test_a_stream_is_resumed_at_another_replica(tmp_path: Path, dialect: str, kind: Break) -> None:
    async with bed(tmp_path, dialect=dialect) as place, client_of(place.house) as client:
        place.plan((5, kind))
        events = [event async for event in await client.responses.create(model="told", input=TEXT, stream=True)]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
        last = events[-1]
        assert last.type == "response.completed"
        assert last.response.output_text == SAID
        await place.house.settled()
        assert place.house.exchanges()[0].outcome == "ok"


async def test_a_question_in_other_words_gets_the_answer(tmp_path: Path) -> None:
    async with semantic(tmp_path) as (house, _):
        seen = []
        for given in (FIRST, SAME):
            got = await ask(house.port, post(PATH, body(input=given, temperature=0)))
            assert msgspec.json.decode(got.body)["output"][0]["content"][0]["text"] == FIRST
            seen.append(got.headers[b"x-penstock-cache"])
        assert seen == [b"miss", b"semantic"]


async def test_a_user_stays_in_an_arm(tmp_path: Path) -> None:
    async with running(tmp_path, route={"experiment": experiment()}) as house:
        arms: dict[str, set[bytes]] = {}
        for number in range(24):
            got = await ask(house.port, post(PATH, body(user=f"user {number % 12}")))
            arms.setdefault(f"user {number % 12}", set()).add(got.headers[b"x-penstock-arm"])
        assert all(len(found) == 1 for found in arms.values())
        assert set.union(*arms.values()) == {b"bot/control", b"bot/treatment"}
        assert any(asked["messages"][0] == {"role": "system", "content": "Be brief."} for asked in house.mock.asked)


@pytest.mark.parametrize("stream", [False, True])
async def test_rules_see_what_goes_in_and_what_comes_out(tmp_path: Path, stream: bool) -> None:
    rules = (
        Rule(name="cards", detect="payment_card", on=("input",), do="mask"),
        Rule(name="names", words=("mallory",), on=("output",), do="block"),
    )
    async with running(tmp_path, policies=(Policy(name="default", rules=rules),)) as house, client_of(house) as client:
        given = "pay 4111 1111 1111 1111 to mallory now"
        if stream:
            events = [event async for event in await client.responses.create(model="mock", input=given, stream=True)]
            last = events[-1]
            assert last.type == "response.incomplete"
            reply = last.response
        else:
            reply = await client.responses.create(model="mock", input=given)
        assert reply.status == "incomplete"
        assert reply.incomplete_details is not None
        assert reply.incomplete_details.reason == "content_filter"
        assert "mallory" not in reply.output_text
        assert "4111" not in msgspec.json.encode(house.mock.asked[0]).decode()
