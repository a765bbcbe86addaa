"""Answers for questions that mean the same: to the same tenant, in the same context, of the same facts, and never at any price."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.snapshot import CachePolicy, SemanticPolicy
from tests.gateway.house import KEY, OTHER, House, running
from tests.gateway.raw_client import ask, chat, post
from tests.gateway.vectors import Vectors, vectors

FIRST, SAME = "Where is my parcel?", "hello, where's my package please"


def policy(**changes: Any) -> dict[str, Any]:
    semantic = SemanticPolicy(pool="vectors", **{"threshold": 0.9, "timeout_s": 5.0, **changes.pop("semantic", {})})
    return {"cache": CachePolicy(mode="semantic", semantic=semantic, **changes)}


@asynccontextmanager
async def semantic(tmp_path: Path, *, pause_s: float = 0.0, **changes: Any) -> AsyncIterator[tuple[House, Vectors]]:
    async with (
        vectors() as server,
        running(tmp_path, route=policy(**changes), pools=(server.pool,), pause_s=pause_s) as house,
    ):
        yield house, server


async def told(house: House, text: str, *, key: str = KEY, **fields: Any) -> tuple[str, bytes]:
    got = await ask(house.port, chat(text, key=key, **{"temperature": 0, **fields}))
    assert got.status == 200, got.body
    return got.headers[b"x-penstock-cache"].decode(), got.body


def counted(house: House, result: str) -> float:
    return house.worker.gateway.meters.cell("penstock_semantic_total", result).value


async def test_a_question_in_other_words_gets_the_answer(tmp_path: Path) -> None:
    async with semantic(tmp_path) as (house, server):
        first = await ask(house.port, chat(FIRST, temperature=0))
        second = await ask(house.port, chat(SAME, temperature=0))
        assert (first.headers[b"x-penstock-cache"], second.headers[b"x-penstock-cache"]) == (b"miss", b"semantic")
        assert second.headers[b"x-penstock-similarity"] == b"1.0000"
        assert b"x-penstock-similarity" not in first.headers
        assert second.body == first.body
        assert server.asked == [FIRST, SAME]
        assert (await told(house, FIRST))[0] == "hit"
        assert len(house.mock.asked) == 1 and len(server.asked) == 2  # the very same question needs no vector
        await house.settled()
        hit = house.exchanges()[1]
        assert (hit.cache, hit.replica, hit.cost_nanousd, hit.attempts) == ("semantic", "", 0, 0)
        assert counted(house, "hit") == 1 and counted(house, "empty") == 1
        assert house.worker.gateway.meters.cache_semantic.value == 1


async def test_a_stream_comes_back_as_a_stream(tmp_path: Path) -> None:
    async with semantic(tmp_path) as (house, _):
        first = await ask(house.port, chat(FIRST, stream=True, temperature=0))
        usage = {"include_usage": True}
        second = await ask(house.port, chat(SAME, stream=True, temperature=0, stream_options=usage))
        assert second.headers[b"x-penstock-cache"] == b"semantic"
        assert second.headers[b"content-type"].startswith(b"text/event-stream")
        assert first.body.endswith(b"data: [DONE]\n\n") and second.body.endswith(b"data: [DONE]\n\n")
        assert first.body.removesuffix(b"data: [DONE]\n\n") in second.body and b'"usage":{' in second.body
        assert (await told(house, SAME))[0] == "miss"  # not as JSON
        assert len(house.mock.asked) == 2


@pytest.mark.parametrize(
    "other",
    [
        "where is my parcel 4711",
        "Where isn't my parcel?",
        "Where is Anna's parcel?",
        "When is my parcel?",
        "the weather",
        "my parcel, almost",
    ],
)
async def test_another_question_is_asked(tmp_path: Path, other: str) -> None:
    async with semantic(tmp_path) as (house, _):
        await told(house, FIRST)
        state, body = await told(house, other)
        assert state == "miss" and other in msgspec.json.decode(body)["choices"][0]["message"]["content"]


async def test_all_but_the_last_words_must_be_the_same(tmp_path: Path) -> None:
    async with semantic(tmp_path) as (house, _):

        def talk(last: str, *before: str, **fields: Any) -> bytes:
            turns = [
                {"role": role, "content": text}
                for role, text in zip(("system", "user", "assistant"), before, strict=False)
            ]
            body = {
                "model": "mock",
                "temperature": 0,
                "messages": [*turns, {"role": "user", "content": last}],
                **fields,
            }
            return post("/v1/chat/completions", msgspec.json.encode(body))

        async def state(request: bytes) -> bytes:
            return (await ask(house.port, request)).headers[b"x-penstock-cache"]

        assert await state(talk(FIRST, "Be kind.", "Hi", "Hello!")) == b"miss"
        assert (
            await state(talk(SAME, "Be kind.", "Hi", "Hello!", user="u", metadata={"session_id": "1"})) == b"semantic"
        )
        assert await state(talk(SAME, "Be rude.", "Hi", "Hello!")) == b"miss"
        assert await state(talk(SAME, "Be kind.", "Hi", "Hello?")) == b"miss"
        assert await state(talk(SAME, "Be kind.")) == b"miss"
        assert await state(talk(SAME, "Be kind.", "Hi", "Hello!", max_tokens=7)) == b"miss"
        completion = {"model": "mock", "temperature": 0, "prompt": FIRST}
        assert await state(post("/v1/completions", msgspec.json.encode(completion))) == b"miss"
        assert await state(post("/v1/completions", msgspec.json.encode({**completion, "prompt": SAME}))) == b"semantic"


async def test_what_is_sampled_or_offers_tools_is_asked_anew_unless_the_route_says_otherwise(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for allowed in (False, True):
        async with semantic(tmp_path / str(allowed), sampled=allowed, tools=allowed) as (house, server):
            for fields in ({"temperature": 0.7}, {"tools": tools}):
                await told(house, FIRST, **fields)
                assert (await told(house, SAME, **fields))[0] == ("semantic" if allowed else "off")
            assert bool(server.asked) is allowed


@pytest.mark.parametrize("fault", ["late", "status", "garbage", "nothing", "gone"])
async def test_without_a_vector_the_model_is_asked(tmp_path: Path, fault: str) -> None:
    async with semantic(tmp_path, semantic={"timeout_s": 0.2}) as (house, server):
        server.fault = fault
        if fault == "gone":
            await server.server.drain(0.1)
        for text in (FIRST, SAME):
            assert (await told(house, text))[0] == "miss"
        assert len(house.mock.asked) == 2 and counted(house, "failed") == 2
        assert (await told(house, FIRST))[0] == "hit"
        await house.settled()


async def test_a_pool_that_is_late_again_and_again_is_not_waited_for(tmp_path: Path) -> None:
    async with semantic(tmp_path, semantic={"timeout_s": 0.05}) as (house, server):
        server.fault = "late"
        for number in range(3):
            await told(house, f"{FIRST} {number}")
        for number in range(3, 20):
            await told(house, f"{FIRST} {number}")
            if len(server.asked) <= number:
                return
        raise AssertionError("it was asked every time")


async def test_an_exact_route_asks_for_no_vectors(tmp_path: Path) -> None:
    async with semantic(tmp_path) as (house, server):
        house.take(
            routes=(
                msgspec.structs.replace(house.worker.gateway.index.snapshot.routes[0], cache=CachePolicy(mode="exact")),
            )
        )
        await told(house, FIRST)
        assert (await told(house, SAME))[0] == "miss"
        assert server.asked == []


async def test_tenants_share_nothing_by_key_or_by_time(tmp_path: Path) -> None:
    pause = 1.0
    async with semantic(tmp_path, pause_s=pause) as (house, _):
        gateway = house.worker.gateway

        async def timed(text: str, key: str) -> tuple[str, float]:
            began = time.monotonic()
            state, _ = await told(house, text, key=key)
            return state, time.monotonic() - began

        assert (await timed(FIRST, KEY))[0] == "miss"
        for text in (FIRST, SAME):
            state, took = await timed(text, OTHER)
            if text == FIRST:
                assert state == "miss" and took >= pause  # exact: as long as if nobody had ever asked
        assert len(house.mock.asked) == 2
        own, others = gateway.cache._entries.keys(), gateway.shelves._shelves
        assert len(own) == 2 and len(others) == 2  # one of each, for each of them
        assert not {row for shelf in list(others.values())[:1] for row in shelf._rows} & set(
            list(others.values())[1]._rows
        )
        for text, expected in ((FIRST, "hit"), (SAME, "semantic")):
            state, took = await timed(text, KEY)
            assert state == expected and took < pause


async def test_a_like_question_of_another_tenant_takes_as_long_as_a_new_one(tmp_path: Path) -> None:
    pause = 0.5
    async with semantic(tmp_path, pause_s=pause) as (house, _):
        await told(house, FIRST)
        began = time.monotonic()
        state, body = await told(house, SAME, key=OTHER)
        assert state == "miss" and time.monotonic() - began >= pause
        assert SAME in msgspec.json.decode(body)["choices"][0]["message"]["content"]


async def test_an_answer_that_was_cut_short_is_for_its_own_question_only(tmp_path: Path) -> None:
    async with semantic(tmp_path, tools=True) as (house, _):
        assert (await told(house, "!tool find {}"))[0] == "miss"
        assert len(house.worker.gateway.shelves._shelves) == 0
        assert (await told(house, "!tool find {}"))[0] == "hit"


async def test_a_question_whose_answer_made_room_is_forgotten(tmp_path: Path) -> None:
    async with semantic(tmp_path) as (house, _):
        await told(house, FIRST)
        house.worker.gateway.cache.clear()
        assert (await told(house, SAME))[0] == "miss"
        assert house.worker.gateway.shelves.questions == 1
