import asyncio
import math
import random
from pathlib import Path

import pytest
import uvloop

from penstock.access.limits import SEATS, SPEND, TOKENS
from penstock.core.errors import RateLimited
from penstock.core.snapshot import KeyEntry, Limits, TenantEntry
from penstock.gateway.ratelimit import limit_lines
from penstock.store.ledger import LocalLedger
from penstock.store.ledger_log import LedgerLog
from penstock.store.ledger_socket import LedgerServer, SocketLedger
from penstock.store.limiter import Limiter
from tests.store.asking import count, reserve

FREE = TenantEntry(name="acme")


def key(**limits: float) -> KeyEntry:
    return KeyEntry(id="k", hash="", tenant="acme", limits=Limits(**limits))  # type: ignore[arg-type]


async def test_requests_per_minute_are_exact_and_say_when_to_come_back() -> None:
    limiter = Limiter(LocalLedger())
    caller = key(requests_per_minute=100)
    for _ in range(100):
        await count(limiter, caller, FREE, 1000.0)
    with pytest.raises(RateLimited, match="key k: 100 requests per minute, 0 left") as refused:
        await count(limiter, caller, FREE, 1000.5)
    wait = refused.value.retry_after
    assert wait is not None
    assert 59 < wait <= 62
    with pytest.raises(RateLimited):
        await count(limiter, caller, FREE, 1000.5 + wait - 0.01)
    await count(limiter, caller, FREE, 1000.5 + wait + 0.01)


async def test_tokens_are_reserved_and_settled_by_true_use() -> None:
    ledger = LocalLedger()
    limiter = Limiter(ledger)
    caller = key(tokens_per_minute=1000)
    first = await reserve(limiter, caller, FREE, 900, 5.0)
    assert first is not None
    with pytest.raises(RateLimited):
        await reserve(limiter, caller, FREE, 200, 5.1)
    limiter.settle(first, 100, 6.5)
    limiter.settle(first, 0, 6.5)
    second = await reserve(limiter, caller, FREE, 900, 6.6)
    assert second is not None
    with pytest.raises(RateLimited):
        await reserve(limiter, caller, FREE, 1, 6.6)
    limiter.settle(second, 950, 6.7)
    limiter.close(6.8)
    assert ledger.used("key:k", TOKENS, 6.9) == 1050, "more than was reserved is charged in full"


async def test_a_request_that_can_never_fit_says_so() -> None:
    limiter = Limiter(LocalLedger())
    with pytest.raises(RateLimited, match="can never be served") as refused:
        await reserve(limiter, key(tokens_per_minute=100), FREE, 101, 5.0)
    assert refused.value.retry_after is None


async def test_all_or_nothing_over_key_and_tenant() -> None:
    ledger = LocalLedger()
    limiter = Limiter(ledger)
    tenant = TenantEntry(name="acme", limits=Limits(tokens_per_minute=100, concurrency=1))
    caller = key(tokens_per_minute=1000, concurrency=5, usd_per_day=1.0)
    held = await reserve(limiter, caller, tenant, 60, 5.0, nanousd=1000)
    assert held is not None
    for _ in range(5):
        with pytest.raises(RateLimited):
            await reserve(limiter, caller, tenant, 60, 5.0, nanousd=1000)
    limiter.settle(held, 60, 5.0, nanousd=500)
    limiter.close(5.0)
    assert [ledger.used("key:k", r, 5.0) for r in (TOKENS, SPEND, SEATS)] == [60, 500, 0]
    assert [ledger.used("tenant:acme", r, 5.0) for r in (TOKENS, SEATS)] == [60, 0]


async def test_a_budget_for_a_day_outlives_a_restart(tmp_path: Path) -> None:
    caller = key(usd_per_day=0.001)
    ledger = LocalLedger(LedgerLog(tmp_path / "ledger.log"))
    limiter = Limiter(ledger)
    held = await reserve(limiter, caller, FREE, 0, 1_000_000.0, nanousd=900_000)
    assert held is not None
    limiter.settle(held, 0, 1_000_000.0, nanousd=900_000)
    again = Limiter(LocalLedger(LedgerLog(tmp_path / "ledger.log")))  # the first was killed: it closed nothing
    with pytest.raises(RateLimited) as refused:
        await reserve(again, caller, FREE, 0, 1_000_100.0, nanousd=200_000)
    assert refused.value.code == "insufficient_quota"
    await reserve(again, caller, FREE, 0, 1_000_100.0, nanousd=80_000)
    await reserve(again, caller, FREE, 0, 1_087_000.0, nanousd=900_000)


async def test_standing_is_the_tightest() -> None:
    limiter = Limiter(LocalLedger(), epoch=1000.0)
    tenant = TenantEntry(name="acme", limits=Limits(requests_per_minute=10, tokens_per_minute=1000))
    caller = key(requests_per_minute=600)
    holder = await count(limiter, caller, tenant, 5.0)
    await reserve(limiter, caller, tenant, 400, 5.0)
    assert limit_lines(holder, 5.0).decode().splitlines() == [
        "x-ratelimit-limit-requests: 10",
        "x-ratelimit-remaining-requests: 9",
        "x-ratelimit-reset-requests: 1m2s",
        "x-ratelimit-limit-tokens: 1000",
        "x-ratelimit-remaining-tokens: 600",
        "x-ratelimit-reset-tokens: 1m2s",
    ]
    assert not limiter.holder(key(), FREE).reserves
    assert limit_lines(limiter.holder(key(), FREE), 5.0) == b""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def joined(path: Path, name: str, **setting: object) -> tuple[SocketLedger, Limiter]:
    loop = asyncio.get_running_loop()
    client = SocketLedger(path, name, clock=loop.time)
    limiter = Limiter(client, **setting)  # type: ignore[arg-type]
    client.seats = limiter.book.seats
    await client.start()
    return client, limiter


async def until(condition: object, deadline_s: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_spending_within_a_lease_needs_no_ledger() -> None:
    ledger = LocalLedger()
    asked = 0
    grant = ledger.grant

    class Counting(LocalLedger):
        async def grant(self, wants, now):  # type: ignore[no-untyped-def]
            nonlocal asked
            asked += 1
            return await grant(wants, now)

    limiter = Limiter(Counting())
    caller = key(requests_per_minute=100_000)
    for _ in range(10_000):
        await count(limiter, caller, FREE, 7.0)
    assert asked == math.ceil(10_000 / 1001)


def test_server_and_client_run_on_uvloop_too(tmp_path: Path) -> None:
    async def main() -> int:
        clock = Clock()
        server = LedgerServer(tmp_path / "s", clock=clock)
        await server.start()
        client, limiter = await joined(tmp_path / "s", "w1")
        reservation = await reserve(limiter, key(tokens_per_minute=100), FREE, 40, clock.now)
        assert reservation is not None
        limiter.settle(reservation, 30, clock.now)
        await until(lambda: server.used("key:k", TOKENS) <= 32)
        used = server.used("key:k", TOKENS)
        await client.close()
        await server.close()
        return used

    assert uvloop.run(main()) >= 30


async def test_what_comes_back_late_does_not_live_on_in_a_newer_lease() -> None:
    """Tokens booked at one time and spent at another would be free before they are due."""
    limiter = Limiter(LocalLedger())
    holder = limiter.holder(key(tokens_per_minute=1000), FREE)
    await limiter.reserve(holder, 1, 0.0)
    early = limiter.try_reserve(holder, 8, 0.0)
    assert early is not None
    later = 400 + 8 + 8
    await limiter.reserve(holder, 400, 30.0)
    assert limiter.try_reserve(holder, 8, 30.0) is not None
    limiter.settle(early, 0, 30.0)
    assert limiter.try_reserve(holder, 8, 30.0) is None
    await limiter.reserve(holder, 8, 30.0)
    while True:
        try:
            await limiter.reserve(holder, 3, 63.0)
            later += 3
        except RateLimited:
            break
    assert 975 <= later <= 1000


async def test_many_small_requests_fill_a_limit_and_no_more() -> None:
    limiter = Limiter(LocalLedger())
    holder = limiter.holder(key(tokens_per_minute=1000, concurrency=500), FREE)
    draws = random.Random(7)
    spent, refused, now = 0, 0, 100.0
    while refused < 50:
        now += 0.002
        amount = draws.randint(1, 9)
        try:
            held = limiter.try_reserve(holder, amount, now) or await limiter.reserve(holder, amount, now)
        except RateLimited:
            refused += 1
            continue
        used = draws.randint(0, amount)
        limiter.settle(held, used, now)
        spent += used
    assert now < 160
    assert 980 <= spent <= 1000
