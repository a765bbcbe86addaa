"""Two installations of the gateway, as on two hosts, on one real Redis: one limit, and what a killed worker held comes back."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from penstock.access.limits import SPEND
from penstock.core.snapshot import Limits, Price
from penstock.gateway.keep import write_snapshot
from penstock.store.ledger_redis import PREFIX
from penstock.supervisor.records import Records
from tests.gateway.house import snapshot
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.raw_client import ask, chat
from tests.ports import free_port
from tests.store.redis_server import PROGRAM, RedisServer

LIMIT = 100
LIMITS = Limits(requests_per_minute=LIMIT, concurrency=30, usd_per_day=1000.0)
PRICE = Price(prompt=1000.0, completion=1000.0)


@asynccontextmanager
async def host(data: Path, upstream: str, redis: str) -> AsyncIterator[int]:
    """One installation with two workers: its port."""
    write_snapshot(
        data / "gateway" / "snapshot.json", snapshot([upstream], key={"limits": LIMITS}, pool={"price": PRICE})
    )
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "penstock.cli", "gateway", "--data", str(data), "--gateway-port", str(port)),
        *("--workers", "2"),
        env={**os.environ, "PENSTOCK_GATEWAY_REDIS_URL": redis, "PENSTOCK_GATEWAY_LEDGER_DOWN": "closed"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await ready(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()


async def ready(port: int) -> None:
    async with asyncio.timeout(90):
        while True:
            try:
                if (await ask(port, b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")).status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)


def workers_of(data: Path) -> list[int]:
    records = Records(data / "run")
    return [record.pid for name in ("gateway-0", "gateway-1") if (record := records.read(name)) is not None]


async def booked(redis: RedisServer) -> int:
    async with Redis.from_url(redis.url) as client:
        return int(await client.hget(f"{PREFIX}use:{SPEND}:key:key_1", "used") or 0)


@pytest.mark.skipif(PROGRAM is None, reason="there is no redis-server here")
async def test_two_hosts_hold_one_limit_and_killed_workers_money_comes_back(tmp_path: Path) -> None:
    redis, mock = RedisServer(tmp_path / "redis"), MockUpstream()
    await redis.start()
    upstream = await mock.start()
    try:
        async with (
            host(tmp_path / "a", upstream, redis.url) as first,
            host(tmp_path / "b", upstream, redis.url) as second,
        ):
            held = [asyncio.create_task(ask(first, chat("!wait", max_tokens=100_000))) for _ in range(3)]
            async with asyncio.timeout(30):
                while mock.running < 3:
                    await asyncio.sleep(0.01)
            assert await booked(redis) >= 3 * 100 * 10**9
            workers = workers_of(tmp_path / "a")
            assert len(workers) == 2
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            assert {one.status for one in await asyncio.gather(*held)} == {0}
            async with asyncio.timeout(90):
                while await booked(redis) >= 50 * 10**9:  # less than one of the three, leases and all
                    await asyncio.sleep(0.05)
            await ready(first)

            async def many(port: int) -> int:
                got = [(await ask(port, chat("hello", max_tokens=5))).status for _ in range(LIMIT // 2)]
                assert set(got) <= {200, 429}
                return got.count(200)

            served = 3 + sum(await asyncio.gather(*(many(port) for port in (first, second, first, second))))
            assert LIMIT - 4 <= served <= LIMIT, "2 % in leases, and as much that died with the workers"
    finally:
        mock.gate.set()
        await mock.stop()
        redis.kill()
