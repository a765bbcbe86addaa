"""Interleaved answers that stream: two choices of one stream, whole or told to be cut, and one where there is no other."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.exchange import Usage
from penstock.core.snapshot import CachePolicy, Policy, Rule
from penstock.wire.sse import event_data, split_events
from tests.gateway.house import House, running
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.raw_client import Got, ask, chat, post
from tests.gateway.test_interleave import begin, counted, record_of


class Other(MockUpstream):
    """Says its own text, whatever it is asked; `fault` is the treatment's alone."""

    def __init__(self, text: str, fault: str = "", pause_s: float = 0.0) -> None:
        super().__init__(pause_s=pause_s)
        self.text = text
        self.always = fault

    async def _stream(self, fault: str, text: str, body: dict[str, Any], reply: Any) -> None:
        await super()._stream(fault, self.text, body, reply)


def events(got: Got) -> list[dict[str, Any]]:
    payloads = [event_data(event) for event in split_events(got.body)]
    assert payloads[-1] == b"[DONE]"
    assert b"[DONE]" not in payloads[:-1]
    return [msgspec.json.decode(payload) for payload in payloads[:-1]]


def said(got: Got) -> dict[int, tuple[str, list[str]]]:
    """By choice: its text and its finish reasons."""
    texts: dict[int, tuple[str, list[str]]] = {}
    for event in events(got):
        for choice in event["choices"]:
            text, reasons = texts.get(choice["index"], ("", []))
            reason = choice["finish_reason"]
            texts[choice["index"]] = (text + (choice["delta"].get("content") or ""), reasons + [reason] * bool(reason))
    return texts


async def streamed(house: House, text: str = "from the control", **fields: Any) -> Got:
    got = await ask(house.port, chat(text, stream=True, **fields))
    assert (got.status, got.whole) == (200, True)
    return got


async def test_both_answers_are_choices_of_one_stream_in_random_order(tmp_path: Path) -> None:
    other = Other("from the treatment")
    orders = set()
    async with running(tmp_path) as house:
        begin(house, await other.start())
        for number in range(12):
            got = await streamed(house, user=f"u{number}")
            assert got.headers[b"x-penstock-interleaved"] == b"both; n=2"
            one = await record_of(house)
            assert one.pair is not None
            texts = {"control": "from the control", "new": "from the treatment"}
            assert said(got) == {place: (texts[arm], ["stop"]) for place, arm in enumerate(one.pair.shown)}
            orders.add(one.pair.shown)
            assert (one.arm, one.epoch, one.stream, one.finish, one.outcome) == ("control", 1, True, "stop", "ok")
            assert (one.pair.arm, one.pair.outcome, one.pair.finish) == ("new", "ok", "stop")
            assert (one.usage, one.pair.usage.completion, one.pair.cost_nanousd) == (Usage(11, 4), 4, 19_000)
            assert one.pair.latency_ns > one.pair.first_ns > 0
        assert house.worker.gateway.pools.get("new").taken == 0  # type: ignore[union-attr]
        await other.stop()
    assert orders == {("control", "new"), ("new", "control")}
    assert counted(house, "shown") == 12


async def test_nothing_in_an_event_tells_whose_it_is(tmp_path: Path) -> None:
    other = Other("from the treatment")
    async with running(tmp_path) as house:
        begin(house, await other.start(), pool={"model": "quite-another-name"})
        got = await streamed(house, stream_options={"include_usage": True})
        found = events(got)
        await other.stop()
    assert other.asked[0]["model"] == "quite-another-name"
    assert {tuple(event) for event in found if event["choices"]} == {("id", "object", "created", "model", "choices")}
    assert len({(event["id"], event["created"], event["model"]) for event in found}) == 1
    usages = [event for event in found if not event["choices"]]
    assert [event["usage"]["completion_tokens"] for event in usages] == [4]  # the control's, once, at the end
    assert found[-1] is usages[0]


async def test_they_come_as_they_are_said(tmp_path: Path) -> None:
    """The control waits in the middle, and the treatment's choice is there meanwhile."""
    other = Other("is here already")
    async with running(tmp_path) as house:
        begin(house, await other.start())
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(chat("!stall one two", stream=True))
        seen = b""
        async with asyncio.timeout(20):
            while b"already" not in seen:
                seen += await reader.read(4096)
        assert b"!stall" in seen
        assert b"one" not in seen
        writer.close()
        one = await record_of(house)
        assert (one.outcome, one.pair, one.epoch) == ("cancelled", None, 0)
        assert one.usage.completion == 2  # what the user pays for: the control's chunks
        await other.stop()


@pytest.mark.parametrize("fault", ["reset", "status500", "status400", "notsse", "garbage"])
async def test_a_second_answer_that_does_not_begin_leaves_the_first_alone(tmp_path: Path, fault: str) -> None:
    other = Other("never said", fault)
    async with running(tmp_path) as house:
        begin(house, await other.start())
        got = await streamed(house)
        assert said(got) == {0: ("from the control", ["stop"])}
        assert b"x-penstock-interleaved" not in got.headers
        one = await record_of(house)
        await other.stop()
    assert one.pair is not None
    assert (one.pair.shown, one.pair.outcome, one.epoch) == (
        (), "refused" if fault == "status400" else "error", 1,
    )  # fmt: skip
    assert counted(house, "single_failed") == 1


async def test_a_second_answer_that_begins_late_is_not_waited_for(tmp_path: Path) -> None:
    other = Other("never said", "hang")
    async with running(tmp_path) as house:
        begin(house, await other.start(), patience_s=0.05)
        got = await streamed(house)
        assert said(got) == {0: ("from the control", ["stop"])}
        one = await record_of(house)
        assert one.pair is not None
        assert (one.pair.shown, one.pair.outcome) == ((), "error")
        assert counted(house, "single_late") == 1
        assert house.worker.gateway.pools.get("new").taken == 0  # type: ignore[union-attr]
        await other.stop()


@pytest.mark.parametrize("fault", ["truncate", "error", "nodone", "stall"])
async def test_a_choice_that_its_model_does_not_end_is_told_to_be_cut(tmp_path: Path, fault: str) -> None:
    other = Other("from the treatment", fault)
    async with running(tmp_path) as house:
        begin(house, await other.start(), patience_s=0.2)
        got = await streamed(house)
        texts = sorted(said(got).values())
        one = await record_of(house)
        await other.stop()
    cut = "from the treatment" if fault == "nodone" else "from"
    assert texts == sorted([("from the control", ["stop"]), (cut, ["error"])])
    assert one.pair is not None
    assert (one.pair.shown, one.pair.outcome, one.outcome) == ((), "error", "ok")
    assert counted(house, "cut") == 1


@pytest.mark.parametrize("text", ["!truncate a b", "!error a b", "!nodone a b"])
async def test_a_control_that_breaks_off_is_the_users_error_as_without_it(tmp_path: Path, text: str) -> None:
    other = Other("from the treatment")
    async with running(tmp_path) as house:
        begin(house, await other.start())
        got = await ask(house.port, chat(text, stream=True))
        one = await record_of(house)
        assert b"[DONE]" not in got.body
        assert b'"error"' in got.body
        assert (one.outcome, one.pair, one.epoch) == ("crashed", None, 0)
        refused = await ask(house.port, chat("!status400", stream=True))
        assert refused.status == 400
        assert (await record_of(house)).pair is None
        await other.stop()


async def test_no_place_at_the_treatment_means_one_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        begin(house, "http://127.0.0.1:9", pool={"max_in_flight": 1})
        state = house.worker.gateway.pools.get("new")
        assert state is not None
        state.taken += 1
        assert said(await streamed(house)) == {0: ("from the control", ["stop"])}
        state.taken -= 1
        assert ((await record_of(house)).pair, counted(house, "single_busy")) == (None, 1)


async def test_rules_see_both_choices_and_caches_none(tmp_path: Path) -> None:
    other = Other("the word is swordfish indeed")
    async with running(tmp_path) as house:
        begin(house, await other.start(), route={"cache": CachePolicy(mode="exact"), "coalesce": True})
        mask = Rule(name="secret", words=("swordfish",), on=("output",), do="mask")
        house.take(policies=(Policy(name="default", rules=(mask,)),))
        for _ in range(2):
            got = await streamed(house, temperature=0)
            texts = [text for text, _ in said(got).values()]
            assert len(texts) == 2
            assert not any("swordfish" in text for text in texts)
        await house.settled()
        block = Rule(name="secret", words=("swordfish",), on=("output",), do="block")
        house.take(policies=(Policy(name="default", rules=(block,)),))
        got = await ask(house.port, chat("from the control", stream=True))
        assert b"swordfish" not in got.body
        one = await record_of(house)
        assert one.finish == "content_filter"
        assert one.pair is not None
        assert one.pair.shown == ()  # cut for both: nothing to compare
        await other.stop()


async def test_a_list_is_drafted_when_both_are_whole(tmp_path: Path) -> None:
    other = Other("- three\n- four")
    async with running(tmp_path) as house:
        begin(house, await other.start(), show="draft")
        got = await streamed(house, "- one\n- two", stream_options={"include_usage": True})
        one = await record_of(house)
        assert one.pair is not None
        assert got.headers[b"x-penstock-interleaved"] == b"draft; n=2"
        ((text, reasons),) = said(got).values()
        whose = {"- one": "control", "- three": "new"}
        assert tuple(whose[line] for line in text.split("\n")) == one.pair.shown
        assert reasons == ["stop"]
        assert events(got)[-1]["usage"]["completion_tokens"] == 4
        plain = await streamed(house, "no list at all")
        assert said(plain) == {0: ("no list at all", ["stop"])}
        assert counted(house, "single_apart") == 1
        broken = await ask(house.port, chat("!nodone a", stream=True))
        assert b"[DONE]" not in broken.body
        assert (await record_of(house)).pair is None
        await other.stop()


async def test_a_preference_for_a_streamed_choice_is_taken(tmp_path: Path) -> None:
    other = Other("from the treatment")
    async with running(tmp_path) as house:
        begin(house, await other.start())
        got = await streamed(house)
        word = {"id": "p-1", "request_id": got.headers[b"x-penstock-request-id"].decode(), "chosen": 1}
        told = await ask(house.port, post("/v1/preferences", msgspec.json.encode(word)))
        assert told.status in {200, 202}, told.body
        await house.settled()
        await other.stop()
