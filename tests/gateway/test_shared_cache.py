"""What gateways keep for each other in a real Redis: the second answers from what the first one kept, and none needs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from penstock.core.snapshot import CachePolicy
from penstock.store.cache_redis import PREFIX, RedisCache
from tests.gateway.house import KEY, OTHER, House, running
from tests.gateway.raw_client import ask, chat
from tests.gateway.test_semantic import FIRST, SAME, policy, told
from tests.gateway.vectors import vectors
from tests.store.redis_server import PROGRAM, RedisServer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs redis-server")
SECRET = b"of this installation"


@asynccontextmanager
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    redis = RedisServer(tmp_path / "redis")
    await redis.start()
    try:
        yield redis
    finally:
        redis.kill()


@asynccontextmanager
async def gateway(
    data: Path, url: str, *, secret: bytes = SECRET, wait_s: float = 5.0, **more: Any
) -> AsyncIterator[tuple[House, RedisCache]]:
    cache = RedisCache(url, secret, wait_s=wait_s)
    try:
        async with running(data, shared=cache, **more) as house:
            yield house, cache
    finally:
        await cache.close()


async def names(redis: RedisServer) -> list[bytes]:
    client = Redis(port=redis.port)
    try:
        return sorted(name for name in await client.keys("*") if isinstance(name, bytes))
    finally:
        await client.aclose()


async def test_a_second_gateway_answers_from_what_the_first_kept(tmp_path: Path) -> None:
    exact = {"cache": CachePolicy(mode="exact", ttl_s=60)}
    async with (
        server(tmp_path) as redis,
        gateway(tmp_path / "a", redis.url, route=exact) as (first, kept),
        gateway(tmp_path / "b", redis.url, route=exact) as (second, _),
    ):
        for stream in (False, True):
            one = await ask(first.port, chat(FIRST, stream=stream, temperature=0))
            await kept.written()
            other = await ask(second.port, chat(FIRST, stream=stream, temperature=0))
            assert (one.headers[b"x-penstock-cache"], other.headers[b"x-penstock-cache"]) == (b"miss", b"hit")
            assert other.body == one.body
        assert second.mock.asked == []
        assert (await told(second, FIRST, key=OTHER))[0] == "miss"
        assert (await told(second, FIRST))[0] == "hit"
        assert second.exchanges()[0].cache == "hit"


async def test_questions_that_mean_the_same_are_shared_too(tmp_path: Path) -> None:
    async with server(tmp_path) as redis, vectors() as maker:
        more: dict[str, Any] = {"route": policy(), "pools": (maker.pool,)}
        async with (
            gateway(tmp_path / "a", redis.url, **more) as (first, kept),
            gateway(tmp_path / "b", redis.url, **more) as (second, _),
        ):
            _, body = await told(first, FIRST)
            await kept.written()
            assert await told(second, SAME) == ("semantic", body)
            assert (await told(second, SAME, key=OTHER))[0] == "miss"
            assert (await told(second, "Where is my parcel 4711?"))[0] == "miss"
            assert len(second.mock.asked) == 2


async def test_a_route_may_keep_its_answers_to_itself(tmp_path: Path) -> None:
    async with server(tmp_path) as redis:
        own = {"cache": CachePolicy(mode="exact", shared=False)}
        async with gateway(tmp_path / "a", redis.url, route=own) as (house, kept):
            await told(house, FIRST)
            await kept.written()
            assert await names(redis) == []


async def test_names_tell_no_text_and_begin_with_their_tenant(tmp_path: Path) -> None:
    async with server(tmp_path) as redis, vectors() as maker:
        more: dict[str, Any] = {"route": policy(ttl_s=60), "pools": (maker.pool,)}
        async with gateway(tmp_path / "a", redis.url, **more) as (house, kept):
            for key in (KEY, OTHER):
                await told(house, FIRST, key=key)
            await kept.written()
            found = await names(redis)
            assert len(found) == 4  # an answer and a shelf for each
            tenants = {name.split(b":")[2] for name in found}
            assert len(tenants) == 2 and all(name.startswith(PREFIX.encode()) for name in found)
            client = Redis(port=redis.port)
            for name in found:
                assert not any(word in name for word in (b"acme", b"other", b"parcel", b"mock"))
                assert 0 < await client.pttl(name) <= 60_000
            whole = b"".join([await client.dump(name) or b"" for name in found])
            await client.aclose()
            assert b"parcel" not in whole and b"acme" not in whole  # values are sealed


async def test_what_was_moved_or_written_by_others_is_not_there(tmp_path: Path) -> None:
    async with server(tmp_path) as redis:
        mine, theirs = RedisCache(redis.url, SECRET, wait_s=5.0), RedisCache(redis.url, b"another one", wait_s=5.0)
        mine.put("acme", b"key", b"the answer", 60, b"", b"")
        await mine.written()
        assert await mine.value("acme", b"key") == b"the answer"
        assert await theirs.value("acme", b"key") is None
        client = Redis(port=redis.port)
        await client.copy(mine.name("acme", "answer", b"key"), mine.name("other", "answer", b"key"))
        await client.set(mine.name("acme", "answer", b"damaged"), b"x" * 40)
        await client.aclose()
        for tenant, key in (("other", b"key"), ("acme", b"damaged"), ("acme", b"none")):
            assert await mine.value(tenant, key) is None
        await asyncio.gather(mine.close(), theirs.close())


async def test_without_redis_all_is_answered(tmp_path: Path) -> None:
    exact = {"cache": CachePolicy(mode="exact")}
    async with server(tmp_path) as redis, gateway(tmp_path / "a", redis.url, wait_s=0.2, route=exact) as (house, kept):
        assert (await told(house, FIRST))[0] == "miss"
        await kept.written()
        redis.kill()
        assert (await told(house, FIRST))[0] == "hit"  # its own memory
        for number in range(5):
            assert (await told(house, f"{FIRST} {number}"))[0] == "miss"
        assert kept.failures >= 1
        assert 'penstock_shared_cache_failures_total{worker="w0"}' in house.worker.gateway.meters.exposition().decode()


async def test_a_redis_that_says_nothing_is_waited_for_once_and_briefly(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with gateway(
        tmp_path / "a", f"redis://127.0.0.1:{port}/0", wait_s=0.3, route={"cache": CachePolicy(mode="exact")}
    ) as (house, kept):
        await told(house, FIRST)
        assert kept.failures == 1
        await kept.value("acme", b"anything")
        assert kept.failures == 1, "it rests, and is not asked"
    listening.close()
