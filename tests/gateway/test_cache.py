"""Whole answers again, for the same tenant and the same question only."""

import time
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.exchange import Usage
from penstock.core.snapshot import CachePolicy, Policy, Rule
from penstock.gateway.cache import Cache, cache_key, cache_names
from penstock.gateway.entry import Entry
from tests.gateway.house import KEY, OTHER, running, until
from tests.gateway.raw_client import ask, chat, post

ON = {"cache": CachePolicy(mode="exact", ttl_s=300)}


def entry(body: bytes = b"x", expires: float = 10.0, tenant: str = "") -> Entry:
    return Entry(body=body, stream=False, usage=Usage(), finish="stop", chunks=1, expires=expires, tenant=tenant)


def key(**changes: object) -> bytes:
    parts = {
        "tenant": "a",
        "source": "d",
        "policy": "p",
        "operation": "chat",
        "stream": False,
        "body": b'{"a":1,"b":[2]}',
    }
    parts |= changes
    body = parts.pop("body")
    return cache_key(cache_names(**parts), body)  # type: ignore[arg-type]


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


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 1500)), max_size=80))
def test_nobody_pushes_another_below_an_equal_share(puts: list[tuple[str, int, int]]) -> None:
    cache = Cache(16_000)
    for tenant, number, size in puts:
        before = dict(cache._sizes)
        cache.put(f"{tenant}{number}".encode(), entry(bytes(size), tenant=tenant))
        assert cache.size == sum(cache._sizes.values()) <= 16_000
        for other, held in before.items():
            if other != tenant:
                share = 16_000 / len({*before, tenant})
                assert cache._sizes.get(other, 0) >= min(held, share - 2012)
    for tenant, recent in cache._recent.items():
        assert cache._sizes[tenant] == sum(len(cache._entries[one].body) + 512 for one in recent)


def test_a_flood_leaves_another_tenants_entries() -> None:
    cache = Cache(16_000)
    for number in range(10):
        cache.put(b"b%d" % number, entry(bytes(88), tenant="b"))
    for number in range(1000):
        cache.put(b"a%d" % number, entry(bytes(88), tenant="a"))
    assert all(cache.get(b"b%d" % number, 0.0) is not None for number in range(10))


async def test_the_client_may_ask_anew_or_forbid_keeping(tmp_path: Path) -> None:
    async with running(tmp_path, route=ON) as house:
        body = msgspec.json.encode({"model": "mock", "messages": [{"role": "user", "content": "hi"}], "temperature": 0})

        async def told(control: bytes) -> bytes:
            more = b"Cache-Control: %b\r\n" % control if control else b""
            return (await ask(house.port, post("/v1/chat/completions", body, more=more))).headers[b"x-penstock-cache"]

        assert await told(b"no-store") == b"off"
        assert await told(b"") == b"miss"
        assert await told(b"") == b"hit"
        assert await told(b"max-age=0, No-Cache") == b"miss"
        assert await told(b"max-age=5") == b"hit"
        assert len(house.mock.asked) == 3


async def test_answers_to_requests_with_tools_are_kept_if_the_route_says_so(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for allowed in (False, True):
        policy = {"cache": CachePolicy(mode="exact", tools=allowed)}
        async with running(tmp_path / str(allowed), route=policy) as house:
            for _ in range(2):
                got = await ask(house.port, chat("hello", temperature=0, tools=tools))
            assert got.headers[b"x-penstock-cache"] == (b"hit" if allowed else b"off")
            empty = await ask(house.port, chat("hello", temperature=0, tools=[]))
            assert empty.headers[b"x-penstock-cache"] == b"miss"


async def test_an_entry_ends_with_its_routes_time(tmp_path: Path) -> None:
    async with running(tmp_path, route={"cache": CachePolicy(mode="exact", ttl_s=0.2)}) as house:
        request = chat("hello", temperature=0)
        await ask(house.port, request)
        [kept] = house.worker.gateway.cache._entries.values()
        await until(lambda: time.time() > kept.expires)
        assert (await ask(house.port, request)).headers[b"x-penstock-cache"] == b"miss"


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
