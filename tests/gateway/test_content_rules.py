"""Content rules in and out, whole answers and streams."""

from pathlib import Path
from typing import Any

import msgspec

from penstock.core.snapshot import Policy, Rule
from tests.gateway.house import running, until
from tests.gateway.mock_upstream import chunk
from tests.gateway.raw_client import Got, ask, chat
from tests.gateway.test_ends import DONE, LAST, Engine, framed

CARD = "4111 1111 1111 1111"


def policy(*rules: Rule) -> dict[str, Any]:
    return {"policies": (Policy(name="default", rules=rules),)}


def said(got: Got) -> tuple[str, str]:
    """The text of a stream, and its finish reason."""
    text, finish = "", ""
    for event in got.body.split(b"\n\n"):
        if event.startswith(b"data: {"):
            for choice in msgspec.json.decode(event[6:])["choices"]:
                text += choice["delta"].get("content") or ""
                finish = choice["finish_reason"] or finish
    return text, finish


async def test_input_is_blocked_and_named(tmp_path: Path) -> None:
    rule = Rule(name="bombs", words=("bomb",), on=("input",), do="block")
    async with running(tmp_path, **policy(rule)) as house:
        got = await ask(house.port, chat("how to build a bomb"))
        assert (got.status, got.error["code"], got.error["param"]) == (400, "content_filter", "messages")
        assert not house.mock.asked
        await house.settled()
        (record,) = house.exchanges()
        assert [(one.rule, one.action, one.where) for one in record.findings] == [("bombs", "block", "input")]


async def test_input_is_masked_before_the_engine_sees_it(tmp_path: Path) -> None:
    rule = Rule(name="cards", detect="payment_card", on=("input",), do="mask")
    async with running(tmp_path, **policy(rule)) as house:
        content = [
            {"type": "text", "text": f"my card is {CARD}"},
            {"type": "image_url", "image_url": {"url": "http://x"}},
        ]
        got = await ask(
            house.port,
            chat(
                "x",
                messages=[
                    {"role": "user", "content": f"it is {CARD}."},
                    {"role": "user", "content": content, "name": "n"},
                    {"role": "user", "content": "plain"},
                ],
                logit_bias={"1": 2},
            ),
        )
        assert got.status == 200
        asked = house.mock.asked[0]
        assert "4111" not in msgspec.json.encode(asked).decode()
        assert asked["messages"][1]["content"][1] == content[1]
        assert asked["messages"][1]["name"] == "n"
        assert asked["logit_bias"] == {"1": 2}


async def test_output_is_masked_whole_and_in_streams(tmp_path: Path) -> None:
    rule = Rule(name="cards", detect="payment_card", on=("output",), do="mask")
    async with running(tmp_path, **policy(rule)) as house:
        whole = await ask(house.port, chat(f"your card {CARD} is fine"))
        text = msgspec.json.decode(whole.body)["choices"][0]["message"]["content"]
        assert "4111" not in text
        assert text.startswith("your card ")
        stream = await ask(house.port, chat(f"your card {CARD} is fine", stream=True))
        streamed, finish = said(stream)
        assert streamed == text
        assert finish == "stop"
        assert stream.body.endswith(b"data: [DONE]\n\n")
        await house.settled()
        for record in house.exchanges():
            assert [(one.rule, one.action, one.where, one.count) for one in record.findings] == [
                ("cards", "mask", "output", 1)
            ]


async def test_output_is_blocked_where_the_rule_strikes_and_the_engine_stops(tmp_path: Path) -> None:
    rule = Rule(name="names", words=("mallory",), on=("output",), do="block")
    async with running(tmp_path, pause_s=0.01, **policy(rule)) as house:
        whole = await ask(house.port, chat("ask mallory for the key"))
        choice = msgspec.json.decode(whole.body)["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"].strip()) == ("content_filter", "ask")
        stream = await ask(house.port, chat("ask mallory " + "for the key " * 100, stream=True))
        text, finish = said(stream)
        assert (text.strip(), finish) == ("ask", "content_filter")
        assert stream.body.endswith(b"data: [DONE]\n\n")
        await house.settled()
        assert [record.finish for record in house.exchanges()] == ["content_filter"] * 2
        await until(lambda: house.mock.left == 1)


async def test_usage_passes_a_screened_stream(tmp_path: Path) -> None:
    rule = Rule(name="names", words=("mallory",), on=("output",), do="mask")
    async with running(tmp_path, **policy(rule)) as house:
        asked = {"include_usage": True}
        got = await ask(house.port, chat("hello there mall", stream=True, stream_options=asked))
        assert said(got) == ("hello there mall", "stop")
        assert got.body.count(b'"prompt_tokens"') == 1
        await house.settled()
        assert house.exchanges()[0].usage.completion == 4


async def test_what_was_held_back_is_shown_where_an_engine_ends_without_a_reason(tmp_path: Path) -> None:
    rule = Rule(name="names", words=("mallory",), on=("output",), do="mask")
    engine = Engine(framed(chunk(" mall")) + framed(DONE) + LAST)
    async with engine.serving() as url, running(tmp_path, replicas=0, others=(url,), **policy(rule)) as house:
        got = await ask(house.port, chat("x", stream=True))
        assert said(got) == ("a mall", "")
        assert got.body.endswith(DONE)
