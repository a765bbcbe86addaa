"""Streams that break off and are gone on with elsewhere: what the client gets is one stream, every byte once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from penstock.core.exchange import Usage
from penstock.core.snapshot import Limits, Policy, Pool, Price, Replica, Route, Rule, Target
from penstock.gateway import trail
from penstock.wire.sse import event_data, split_events
from tests.gateway.house import House, running
from tests.gateway.raw_client import Got, ask, chat, post
from tests.gateway.speaker import PROMPT, Break, Speaker

TEXT = "Your order left our house on Monday and comes with the next post"
WORDS = len(TEXT.split(" "))
SAID = TEXT + " "
QUICK: dict[str, Any] = {"first_byte_timeout_s": 5.0, "stall_timeout_s": 0.4, "connect_timeout_s": 0.5}
BREAKS: list[Break] = ["reset", "error", "stall", "end", "half"]
SEATS: dict[str, Any] = {"limits": Limits(concurrency=3, tokens_per_minute=1_000_000)}


class Bed(NamedTuple):
    house: House
    speakers: list[Speaker]

    def plan(self, *breaks: tuple[int, Break]) -> None:
        """Whoever is asked first breaks off as the first of `breaks` says, and so on."""
        script = list(breaks)
        for speaker in self.speakers:
            speaker.plan = script  # shared: a request takes one, whoever gets it


@asynccontextmanager
async def bed(
    data: Path, *, replicas: int = 2, dialect: str = "penstock", speaks: str = "", resume: bool = True, **more: Any
) -> AsyncIterator[Bed]:
    speakers = [Speaker(f"speaker-{index}", dialect=speaks or dialect) for index in range(replicas)]
    for speaker in speakers:
        await speaker.server.start()
    pool = Pool(
        name="speakers",
        replicas=tuple(Replica(id=speaker.name, url=speaker.url) for speaker in speakers),
        dialect=dialect,  # type: ignore[arg-type]
        price=Price(prompt=1.0, completion=10.0),
        **QUICK,
    )
    route = Route(name="told", to=(Target(pool="speakers"),), resume=resume, **more.pop("route", {}))
    try:
        async with running(data, key=SEATS, pools=(pool,), routes=(route,), **more) as house:
            yield Bed(house, speakers)
    finally:
        for speaker in speakers:
            await speaker.server.drain(0.1)


def stream(text: str = TEXT, **fields: Any) -> bytes:
    return chat(text, stream=True, model="told", **fields)


def documents(got: Got) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event_data(e)) for e in split_events(got.body) if event_data(e) != b"[DONE]"]


def text_of(got: Got) -> str:
    said = ""
    for document in documents(got):
        for choice in document.get("choices", ()):
            said += choice.get("delta", {}).get("content") or choice.get("text") or ""
    return said


def check_whole(got: Got, text: str = SAID, finish: str = "stop") -> None:
    """One stream, as if nothing had happened."""
    assert got.status == 200
    assert got.whole, got.body[-300:]
    assert got.body.endswith(b"data: [DONE]\n\n")
    assert got.body.count(b"[DONE]") == 1
    assert b"error" not in got.body
    assert b":ids" not in got.body
    assert text_of(got) == text
    heads = {(d["id"], d["created"], d["model"]) for d in documents(got)}
    assert len(heads) == 1
    said = [choice for document in documents(got) for choice in document["choices"]]
    assert [choice["finish_reason"] for choice in said if choice["finish_reason"]] == [finish]
    assert sum("role" in choice.get("delta", {}) for choice in said) == ("delta" in said[0])


async def check_record(bed: Bed, *, resumed: int, attempts: int) -> None:
    await bed.house.settled()
    (record,) = bed.house.exchanges()
    assert (record.outcome, record.error, record.status, record.finish) == ("ok", "", 200, "stop")
    assert (record.resumed, record.attempts) == (resumed, attempts)
    assert record.usage == Usage(PROMPT, WORDS)
    assert record.cost_nanousd == (PROMPT * 1 + WORDS * 10) * 1000
    phases = record.phases
    assert phases.dispatched <= phases.first_token <= phases.last_token


@pytest.mark.parametrize("dialect", ["penstock", "vllm"])
@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_goes_on_at_another_replica(tmp_path: Path, dialect: str, how: Break) -> None:
    async with bed(tmp_path, dialect=dialect) as it:
        it.plan((5, how))
        got = await ask(it.house.port, stream())
        check_whole(got)
        await check_record(it, resumed=1, attempts=2)
        first, then = (
            s for name in (documents(got)[0]["id"],) for s in sorted(it.speakers, key=lambda s: s.name not in name)
        )
        assert len(first.asked) == len(then.asked) == 1
        meters = it.house.worker.gateway.meters
        assert meters.cell("penstock_resumes_total", "told", "resumed").value == 1


@pytest.mark.parametrize("dialect", ["penstock", "vllm"])
async def test_cut_anywhere(tmp_path: Path, dialect: str) -> None:
    """After every event: none, the role, in the text, the finish reason, the usage, and before `[DONE]`."""
    async with bed(tmp_path, dialect=dialect) as it:
        whole = await ask(it.house.port, stream(stream_options={"include_usage": True}))
        check_whole(whole)
        events = len(split_events(whole.body)) - 1
        usage = documents(whole)[-1]["usage"]
        for cut in range(events):
            if dialect == "vllm" and cut == events - 1:
                continue  # its usage cannot be asked for again
            it.plan((cut, "reset"))
            got = await ask(it.house.port, stream(stream_options={"include_usage": True}))
            check_whole(got)
            assert documents(got)[-1]["usage"] == usage, cut
            await it.house.settled()
        it.plan((10**6, "done_missing"))
        check_whole(await ask(it.house.port, stream(stream_options={"include_usage": True})))
        await it.house.settled()
        assert {record.usage for record in it.house.exchanges()} == {Usage(PROMPT, WORDS)}


@pytest.mark.parametrize("dialect", ["penstock", "vllm"])
async def test_completions_go_on_too(tmp_path: Path, dialect: str) -> None:
    async with bed(tmp_path, dialect=dialect) as it:
        prompt = TEXT + ("|" if dialect == "vllm" else "")
        body = msgspec.json.encode({"model": "told", "prompt": prompt, "stream": True})
        it.plan((4, "reset"))
        got = await ask(it.house.port, post("/v1/completions", body))
        check_whole(got)
        await it.house.settled()


async def test_twice_and_no_more(tmp_path: Path) -> None:
    async with bed(tmp_path, replicas=3) as it:
        it.plan((3, "reset"), (3, "error"))
        check_whole(await ask(it.house.port, stream()))
        await check_record(it, resumed=2, attempts=3)
        it.plan((3, "reset"), (3, "error"), (3, "end"))
        got = await ask(it.house.port, stream())
        assert not got.whole
        assert b"[DONE]" not in got.body
        assert SAID.startswith(text_of(got))
        assert documents(got)[-1]["error"]["code"] == "upstream_truncated"
        await it.house.settled()
        record = it.house.exchanges()[-1]
        assert (record.outcome, record.resumed, record.attempts) == ("crashed", 2, 3)
        meters = it.house.worker.gateway.meters
        assert meters.cell("penstock_resumes_total", "told", "failed").value == 1


@pytest.mark.parametrize("dialect", ["penstock", "vllm"])
async def test_the_limit_counts_what_came_before(tmp_path: Path, dialect: str) -> None:
    async with bed(tmp_path, dialect=dialect) as it:
        it.plan((4, "reset"))
        got = await ask(it.house.port, stream(max_tokens=6))
        check_whole(got, " ".join(TEXT.split(" ")[:6]) + " ", "length")
        await it.house.settled()
        assert it.house.exchanges()[-1].usage == Usage(PROMPT, 6)


@pytest.mark.parametrize("how", ["reset", "error"])
async def test_an_output_rule_sees_across_the_seam(tmp_path: Path, how: Break) -> None:
    rules = (Rule(name="monday", detect="words", words=("house on Monday",), on=("output",), do="mask"),)
    policy = Policy(name="default", rules=rules)
    async with bed(tmp_path, policies=(policy,)) as it:
        plain = await ask(it.house.port, stream())
        assert "Monday" not in text_of(plain)
        for cut in range(1, 12):
            it.plan((cut, how))
            got = await ask(it.house.port, stream())
            check_whole(got, text_of(plain))
            await it.house.settled()
        assert {[(f.rule, f.count) for f in r.findings] == [("monday", 1)] for r in it.house.exchanges()} == {True}


async def test_what_was_resumed_is_kept_and_given_again_as_one(tmp_path: Path) -> None:
    from penstock.core.snapshot import CachePolicy

    async with bed(tmp_path, route={"cache": CachePolicy(mode="exact")}) as it:
        it.plan((5, "reset"))
        first = await ask(it.house.port, stream(temperature=0))
        again = await ask(it.house.port, stream(temperature=0))
        check_whole(first)
        assert again.headers[b"x-penstock-cache"] == b"hit"
        assert again.body == first.body


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"replicas": 1}, {}),  # nobody else
        ({"dialect": "openai", "speaks": "penstock"}, {}),  # nobody who can
        ({"dialect": "penstock", "speaks": "vllm"}, {}),  # said to, and cannot
        ({"resume": False}, {}),
        ({}, {"n": 2}),
        ({"dialect": "vllm"}, {"tools": [{"type": "function", "function": {"name": "x"}}]}),
        ({"dialect": "vllm"}, {"response_format": {"type": "json_object"}}),
    ],
)
async def test_where_nobody_can_go_on_the_end_is_honest(tmp_path: Path, more: Any, fields: Any) -> None:
    async with bed(tmp_path, **more) as it:
        it.plan((4, "reset"))
        got = await ask(it.house.port, stream(**fields))
        assert not got.whole
        assert b"[DONE]" not in got.body
        assert documents(got)[-1]["error"]["code"] == "upstream_truncated"
        assert sum(len(speaker.asked) for speaker in it.speakers) == 1
        await it.house.settled()
        (record,) = it.house.exchanges()
        assert (record.outcome, record.error, record.resumed) == ("crashed", "upstream_truncated", 0)


async def test_an_error_of_the_engine_is_told_where_nobody_can_go_on(tmp_path: Path) -> None:
    async with bed(tmp_path, replicas=1) as it:
        it.plan((4, "error"))
        got = await ask(it.house.port, stream())
        assert got.body.count(b'"error"') == 1
        assert documents(got)[-1]["error"]["code"] == "upstream_error"


async def test_garbage_is_not_gone_on_from(tmp_path: Path) -> None:
    async with bed(tmp_path, route={"attempts": 1}) as it:
        it.plan((4, "garbage"))
        got = await ask(it.house.port, stream())
        assert b'"code":"upstream_garbage"' in got.body
        assert b"[DONE]" not in got.body
        assert sum(len(speaker.asked) for speaker in it.speakers) == 1


async def test_others_that_are_busy_are_told_as_the_break(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        it.plan((4, "reset"), (0, "refuse"))
        got = await ask(it.house.port, stream())
        assert documents(got)[-1]["error"]["code"] == "upstream_truncated"
        await it.house.settled()


async def test_a_stream_too_long_to_be_remembered_ends_where_it_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "MAX_KEPT_BYTES", 20)
    async with bed(tmp_path) as it:
        it.plan((9, "reset"))
        got = await ask(it.house.port, stream())
        assert documents(got)[-1]["error"]["code"] == "upstream_truncated"


async def test_a_client_cannot_speak_for_the_gateway(tmp_path: Path) -> None:
    """Its own continuation and header never reach the engine as such."""
    mine = {"id": "evil", "created": 1, "tokens": [5], "sent": 0, "ended": False}
    async with bed(tmp_path) as it:
        it.plan((4, "reset"))
        body = msgspec.json.encode(
            {
                "model": "told",
                "messages": [{"role": "user", "content": TEXT}],
                "stream": True,
                "penstock_continue": mine,
            }
        )
        got = await ask(it.house.port, post("/v1/chat/completions", body, more=b"x-penstock-resume: continue\r\n"))
        check_whole(got)
        heads = [head[b"x-penstock-resume"] for speaker in it.speakers for head in speaker.heads]
        assert sorted(heads) == [b"continue", b"tell"]
        for speaker in it.speakers:
            for head, asked in zip(speaker.heads, speaker.asked, strict=True):
                if head[b"x-penstock-resume"] == b"continue":
                    assert asked["penstock_continue"]["id"] != "evil"
