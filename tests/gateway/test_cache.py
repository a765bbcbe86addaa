"""Whole answers again, for the same tenant and the same question only."""

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.exchange import Usage
from penstock.core.snapshot import CachePolicy, Policy, Rule
from penstock.gateway.cache import Cache, Entry, cache_key
from tests.gateway.house import KEY, OTHER, running
from tests.gateway.raw_client import ask, chat

ON = {"cache": CachePolicy(mode="exact", ttl_s=300)}


def entry(body: bytes = b"x", expires: float = 10.0) -> Entry:
    return Entry(body=body, stream=False, usage=Usage(), finish="stop", chunks=1, expires=expires)


def key(**changes: object) -> bytes:
    parts = {
        "tenant": "a",
        "source": "d",
        "policy": "p",
        "operation": "chat",
        "stream": False,
        "body": b'{"a":1,"b":[2]}',
    }
    return cache_key(**{**parts, **changes})  # type: ignore[arg-type]


def test_a_key_is_of_its_tenant_weights_policy_and_question() -> None:
    others = [
        key(tenant="b"),
        key(source="e"),
        key(policy="q"),
        key(operation="completions"),
        key(stream=True),
        key(body=b'{"a":1,"b":[3]}'),
        key(body=b'{"a":1}'),
        key(tenant="a\0d", source=""),
        key(),
    ]
    assert len(set(others)) == len(others)
    assert key(body=b'{"b":[2],"a":1,"user":"u","metadata":{}, "stream":true}') == key()


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3000)), max_size=60))
def test_the_cache_never_holds_more_than_its_bytes(puts: list[tuple[int, int]]) -> None:
    cache = Cache(16_000)
    last: dict[int, bytes] = {}
    for number, size in puts:
        body = bytes(size)
        cache.put(str(number).encode(), entry(body))
        if size + 512 <= 2000:
            last[number] = body
        assert cache.size <= 16_000
    assert cache.size == sum(len(one.body) + 512 for one in cache._entries.values())
    for number, body in last.items():
        found = cache.get(str(number).encode(), 0.0)
        assert found is None or found.body == body


def test_the_least_recently_used_makes_room_and_time_ends_all() -> None:
    cache = Cache(8 * 600)
    for name in range(8):
        cache.put(b"%d" % name, entry(bytes(88)))
    assert cache.get(b"0", 0.0) is not None
    cache.put(b"9", entry(bytes(88)))
    assert cache.get(b"1", 0.0) is None
    assert cache.get(b"0", 0.0) is not None
    assert cache.get(b"0", 10.0) is None
    assert len(cache) == 7


async def test_the_second_answer_comes_from_the_cache(tmp_path: Path) -> None:
    async with running(tmp_path, route=ON) as house:
        first = await ask(house.port, chat("hello you", temperature=0))
        second = await ask(house.port, chat("hello you", temperature=0, user="somebody"))
        assert (first.headers[b"x-penstock-cache"], second.headers[b"x-penstock-cache"]) == (b"miss", b"hit")
        assert first.body == second.body
        assert len(house.mock.asked) == 1
        await house.settled()
        hit = house.exchanges()[1]
        assert (hit.cache, hit.replica, hit.cost_nanousd, hit.attempts) == ("hit", "", 0, 0)
        assert hit.digest == "sha256:" + "ab" * 32


async def test_streams_are_given_again_as_streams(tmp_path: Path) -> None:
    async with running(tmp_path, route=ON) as house:
        first = await ask(house.port, chat("hello you all", temperature=0, stream=True))
        second = await ask(house.port, chat("hello you all", temperature=0, stream=True))
        asked = {"include_usage": True}
        third = await ask(house.port, chat("hello you all", temperature=0, stream=True, stream_options=asked))
        assert second.headers[b"x-penstock-cache"] == b"hit"
        assert second.headers[b"content-type"].startswith(b"text/event-stream")
        assert first.body == second.body
        assert b'"usage"' not in second.body
        assert third.body.count(b'"prompt_tokens"') == 1
        assert third.body.endswith(b"data: [DONE]\n\n")
        assert len(house.mock.asked) == 1


async def test_tenants_never_share(tmp_path: Path) -> None:
    async with running(tmp_path, route=ON) as house:
        for _ in range(2):
            for who in (KEY, OTHER):
                await ask(house.port, chat("a secret of mine", temperature=0, key=who))
        await house.settled()
        assert [(record.tenant, record.cache) for record in house.exchanges()] == [
            ("acme", "miss"),
            ("other", "miss"),
            ("acme", "hit"),
            ("other", "hit"),
        ]


async def test_sampled_answers_are_not_given_again(tmp_path: Path) -> None:
    async with running(tmp_path, route=ON) as house:
        for request in (chat("hello"), chat("hello", temperature=0.5)):
            for _ in range(2):
                got = await ask(house.port, request)
                assert got.headers[b"x-penstock-cache"] == b"off"


async def test_answers_that_broke_are_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path, route=ON) as house:
        for stream in (False, True):
            for _ in range(2):
                got = await ask(house.port, chat("!truncate two three", temperature=0, stream=stream))
                assert got.headers[b"x-penstock-cache"] == b"miss"
        assert len(house.worker.gateway.cache) == 0


async def test_a_changed_policy_asks_again(tmp_path: Path) -> None:
    async with running(tmp_path, route=ON) as house:
        await ask(house.port, chat("call mallory now", temperature=0))
        rule = Rule(name="names", words=("mallory",), on=("output",), do="mask")
        house.take(policies=(Policy(name="default", rules=(rule,)),))
        got = await ask(house.port, chat("call mallory now", temperature=0))
        assert got.headers[b"x-penstock-cache"] == b"miss"
        text = msgspec.json.decode(got.body)["choices"][0]["message"]["content"]
        assert "mallory" not in text
