"""What every shared ledger promises, over the supervisor's socket and over a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.access.limits import (
    COUNTS,
    DAY_S,
    MONTH_S,
    REQUESTS,
    SEATS,
    SIZES,
    SPEND,
    SPEND_MINUTE,
    SPEND_MONTH,
    TOKENS,
    TOKENS_DAY,
    TOKENS_MONTH,
)
from penstock.core.errors import RateLimited, Unavailable
from penstock.core.snapshot import KeyEntry, Limits, TenantEntry
from tests.store.asking import count, reserve
from tests.store.books import Books, RedisBooks, SocketBooks, Worker, until
from tests.store.redis_server import PROGRAM, RedisServer

FREE = TenantEntry(name="acme")


def key(**limits: float) -> KeyEntry:
    return KeyEntry(id="k", hash="", tenant="acme", limits=Limits(**limits))  # type: ignore[arg-type]


@pytest.fixture(params=["socket", "redis"])
async def books(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Books]:
    if request.param == "redis" and PROGRAM is None:
        pytest.skip("there is no redis-server here")
    server = RedisServer(tmp_path / "redis")
    made: Books = SocketBooks(tmp_path) if request.param == "socket" else RedisBooks(tmp_path, server)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
        server.kill()


async def leave(*workers: Worker) -> None:
    for worker in workers:
        await worker.client.close()


async def settled(books: Books, scope: str, resource: int, amount: int) -> None:
    async with asyncio.timeout(20):
        while await books.used(scope, resource) != amount:
            await asyncio.sleep(0.005)


async def test_workers_together_never_exceed_and_waste_at_most_two_percent(books: Books) -> None:
    workers = [await books.join(f"w{i}") for i in range(3)]
    caller = key(requests_per_minute=1000)

    async def spend(worker: Worker) -> int:
        got = 0
        while True:
            try:
                await count(worker.limiter, caller, FREE, books.now)
            except RateLimited:
                return got
            got += 1

    total = sum(await asyncio.gather(*(spend(worker) for worker in workers)))
    assert 980 <= total <= 1000
    assert await books.used("key:k", REQUESTS) == 1000
    await leave(*workers)


async def test_small_limits_are_refused_no_earlier_than_at_the_limit(books: Books) -> None:
    workers = [await books.join(f"w{i}") for i in range(2)]
    caller = key(requests_per_minute=7)
    got = 0
    for _ in range(10):
        for worker in workers:
            try:
                await count(worker.limiter, caller, FREE, books.now)
                got += 1
            except RateLimited:
                pass
    assert got == 7
    await leave(*workers)


async def test_retry_after_is_when_it_fits_and_not_before(books: Books) -> None:
    worker = await books.join("w")
    caller = KeyEntry(
        id="k", hash="", tenant="acme", limits=Limits(tokens_per_minute=40, usd_per_minute=0.001, usd_per_day=1)
    )
    await reserve(worker.limiter, caller, FREE, 10, books.now, 800_000)
    books.now += 20
    await reserve(worker.limiter, caller, FREE, 25, books.now)
    books.now += 5
    with pytest.raises(
        RateLimited, match="tokens per minute"
    ) as refused:  # 30 tokens, when the 25 are free; the money is sooner
        await reserve(worker.limiter, caller, FREE, 30, books.now, 300_000)
    wait = refused.value.retry_after
    assert wait is not None
    assert 54 < wait <= 57
    books.now += wait - 0.01
    with pytest.raises(RateLimited):
        await reserve(worker.limiter, caller, FREE, 30, books.now, 300_000)
    books.now += 0.06  # a refusal is remembered for a moment
    await reserve(worker.limiter, caller, FREE, 30, books.now, 300_000)
    with pytest.raises(RateLimited, match="can never be served") as never:
        await reserve(worker.limiter, caller, FREE, 41, books.now)
    assert never.value.retry_after is None
    await leave(worker)


async def test_money_by_minute_day_and_month(books: Books) -> None:
    worker = await books.join("w")
    caller = key(usd_per_minute=1.0, usd_per_day=2.0, usd_per_month=3.0)
    dollar = 10**9

    async def spend() -> str | None:
        try:
            held = await reserve(worker.limiter, caller, FREE, 0, books.now, dollar)
        except RateLimited as refused:
            return str(refused).split(" US dollars ")[1].split(",")[0]
        worker.limiter.settle(held, 0, books.now, dollar)
        return None

    told = []
    for pause in (0.0, 30.0, 40.0, 70.0, 86400.0 + 400, 70.0, 30 * 86400.0 + 5 * 3600):
        books.now += pause
        told.append(await spend())
    assert told == [None, "per minute", None, "per day", None, "per 30 days", None]
    worker.limiter.close(books.now)
    for resource in (SPEND, SPEND_MINUTE, SPEND_MONTH):
        await settled(books, "key:k", resource, dollar)
    await leave(worker)


@pytest.mark.parametrize("kind", ["requests", "tokens"])
async def test_requests_and_tokens_by_minute_day_and_month(books: Books, kind: str) -> None:
    worker = await books.join("w")
    caller = key(**{f"{kind}_per_minute": 10, f"{kind}_per_day": 20, f"{kind}_per_month": 30})

    async def use() -> tuple[str, str, float] | None:
        try:
            if kind == "requests":
                for _ in range(10):
                    await count(worker.limiter, caller, FREE, books.now)
            else:
                held = await reserve(worker.limiter, caller, FREE, 10, books.now)
                worker.limiter.settle(held, 10, books.now)
        except RateLimited as refused:
            assert refused.retry_after is not None
            return str(refused).split(f" {kind} ")[1].split(",")[0], refused.code, refused.retry_after
        return None

    told = []
    for pause in (0.0, 30.0, 40.0, 70.0, DAY_S + 400.0, 70.0, MONTH_S + 5 * 3600.0):
        books.now += pause
        told.append(await use())
    assert [one and one[:2] for one in told] == [
        None,
        ("per minute", "rate_limit_exceeded"),
        None,
        ("per day", "insufficient_quota"),
        None,
        ("per 30 days", "insufficient_quota"),
        None,
    ]
    waits = [one[2] for one in told if one is not None]
    assert 30 - 1 <= waits[0] <= 33
    assert DAY_S - 141 <= waits[1] <= DAY_S + 361 - 140
    assert MONTH_S - DAY_S - 700 <= waits[2] <= MONTH_S - DAY_S + 4 * 3600
    worker.limiter.close(books.now)
    for resource in COUNTS if kind == "requests" else SIZES:
        await settled(books, "key:k", resource, 10)
    await leave(worker)


async def test_long_windows_are_leased_as_short_ones_and_settled_by_true_use(books: Books) -> None:
    """Three workers together: never over a day's tokens or requests, at most 2 % under, and back is what was not used."""
    workers = [await books.join(f"w{i}") for i in range(3)]
    caller = key(tokens_per_day=50_000, tokens_per_month=60_000, requests_per_day=2_000)

    async def spend(worker: Worker) -> int:
        got = 0
        while True:
            try:
                await count(worker.limiter, caller, FREE, books.now)
                held = await reserve(worker.limiter, caller, FREE, 50, books.now)
            except RateLimited as refused:
                assert refused.code == "insufficient_quota"
                return got
            worker.limiter.settle(held, 40, books.now)
            got += 40

    total = sum(await asyncio.gather(*(spend(worker) for worker in workers)))
    assert 49_000 - 3 * 50 <= total <= 50_000
    for worker in workers:
        worker.limiter.close(books.now)
    await settled(books, "key:k", TOKENS_DAY, total)
    await settled(books, "key:k", TOKENS_MONTH, total)
    books.now += DAY_S + 400
    assert await books.used("key:k", TOKENS_DAY) == 0
    assert await books.used("key:k", TOKENS_MONTH) == total
    await leave(*workers)


async def test_what_was_not_used_comes_back_and_what_was_used_more_is_charged(books: Books) -> None:
    worker = await books.join("w")
    caller = key(tokens_per_minute=1000, concurrency=2)
    held = await reserve(worker.limiter, caller, FREE, 900, books.now)
    books.now += 3
    worker.limiter.settle(held, 100, books.now)
    await settled(books, "key:k", SEATS, 0)
    more = await reserve(worker.limiter, caller, FREE, 800, books.now)
    worker.limiter.settle(more, 1200, books.now)
    worker.limiter.close(books.now)
    await settled(books, "key:k", TOKENS, 1300)
    await leave(worker)


async def test_all_or_nothing_over_key_tenant_and_model(books: Books) -> None:
    worker = await books.join("w")
    caller = KeyEntry(
        id="k", hash="", tenant="acme", limits=Limits(tokens_per_minute=1000), model_limits={"m": Limits(concurrency=1)}
    )
    tenant = TenantEntry(name="acme", model_limits={"m": Limits(tokens_per_minute=100)})
    holder = worker.limiter.holder_on(caller, tenant, "m", Limits(requests_per_minute=3))
    held = await worker.limiter.reserve(holder, 60, books.now)
    with pytest.raises(RateLimited, match="key k on model m: 1 requests at once"):
        await worker.limiter.reserve(holder, 10, books.now)
    worker.limiter.settle(held, 60, books.now)
    await settled(books, "key:k on model m", SEATS, 0)
    books.now += 0.1
    with pytest.raises(RateLimited, match="tenant acme on model m: 100 tokens per minute, 40 left"):
        await worker.limiter.reserve(holder, 50, books.now)
    for _ in range(2):
        books.now += 0.1
        worker.limiter.settle(await worker.limiter.reserve(holder, 10, books.now), 10, books.now)
        await settled(books, "key:k on model m", SEATS, 0)
    books.now += 0.1
    with pytest.raises(
        RateLimited, match="Limit reached for model m: 3 requests per minute, 1 requests asked"
    ) as refused:
        await worker.limiter.reserve(holder, 10, books.now)
    assert "left" not in str(refused.value), "what others use of a model is not told"
    worker.limiter.close(books.now)
    await settled(books, "key:k", TOKENS, 80)
    assert await books.used("tenant:acme on model m", TOKENS) == 80
    await leave(worker)


async def test_a_dead_workers_places_are_free_and_what_it_leased_counts_as_spent(books: Books) -> None:
    one, two = await books.join("w1"), await books.join("w2")
    caller = key(concurrency=1, tokens_per_minute=10_000)
    await reserve(one.limiter, caller, FREE, 100, books.now)
    with pytest.raises(RateLimited, match="at once"):
        await reserve(two.limiter, caller, FREE, 100, books.now)
    used = await books.used("key:k", TOKENS)
    assert used == 200, "the need, and half of the 2 % that may be leased"
    await one.kill()
    await books.bury(one)
    books.now += 0.1
    assert await books.used("key:k", SEATS) == 0
    await reserve(two.limiter, caller, FREE, 100, books.now)
    assert await books.used("key:k", SEATS) == 1
    assert await books.used("key:k", TOKENS) >= used
    books.now += 63
    assert await books.used("key:k", TOKENS) == 0
    await leave(two)


async def test_a_killed_ledger_comes_back_knowing_what_was_used_and_who_holds_places(books: Books) -> None:
    worker = await books.join("w1")
    caller = key(concurrency=2, tokens_per_minute=100)
    held = await reserve(worker.limiter, caller, FREE, 90, books.now)
    still = await reserve(worker.limiter, caller, FREE, 2, books.now)
    books.kill()
    await until(lambda: not worker.client.up)
    with pytest.raises(Unavailable) as refused:
        await reserve(worker.limiter, caller, FREE, 5, books.now)
    assert (refused.value.code, refused.value.retry_after) == ("ledger_down", 1.0)
    worker.limiter.settle(held, 50, books.now)
    await books.start()
    await books.joined([worker])
    await settled(books, "key:k", SEATS, 1)
    await settled(books, "key:k", TOKENS, 52)
    worker.limiter.settle(still, 2, books.now)
    await settled(books, "key:k", SEATS, 0)
    await leave(worker)


async def test_open_while_the_ledger_is_away_means_the_workers_share_and_no_more(books: Books) -> None:
    books.kill()
    worker = await books.join("w1", down="open", workers=4)
    caller = key(requests_per_minute=100, tokens_per_minute=400)
    holder = worker.limiter.holder(caller, FREE)
    for _ in range(25):
        await worker.limiter.count(holder, books.now)
    with pytest.raises(RateLimited) as refused:
        await worker.limiter.count(holder, books.now)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= 5.0, "the ledger may be back before the window is over"
    with pytest.raises(Unavailable):
        await worker.limiter.count(holder, books.now, "closed")
    held = await worker.limiter.reserve(holder, 80, books.now)
    late = await worker.limiter.reserve(holder, 20, books.now)
    worker.limiter.settle(held, 30, books.now)
    await books.start()
    await books.joined([worker])
    worker.limiter.tick(books.now)
    await settled(books, "key:k", REQUESTS, 25)
    await settled(books, "key:k", TOKENS, 50)
    worker.limiter.settle(late, 5, books.now)
    await settled(books, "key:k", TOKENS, 35)
    await leave(worker)


async def test_what_a_worker_granted_itself_frees_nothing_once_its_time_is_over(books: Books) -> None:
    books.kill()
    worker = await books.join("w1", down="open", workers=1)
    caller = key(tokens_per_minute=400)
    long = await reserve(worker.limiter, caller, FREE, 300, books.now)
    await books.start()
    await books.joined([worker])
    worker.limiter.tick(books.now)
    await settled(books, "key:k", TOKENS, 300)
    books.now += 70
    await books.heard([worker])
    await reserve(worker.limiter, caller, FREE, 390, books.now)
    worker.limiter.settle(long, 1, books.now)
    await books.heard([worker])
    with pytest.raises(RateLimited):
        await reserve(worker.limiter, caller, FREE, 200, books.now)
    await leave(worker)


async def test_a_cancelled_request_leaves_nothing_taken(books: Books) -> None:
    worker = await books.join("w1")
    caller = key(concurrency=4, tokens_per_minute=40)
    for spins in range(8):
        task = asyncio.create_task(reserve(worker.limiter, caller, FREE, 10, books.now))
        for _ in range(spins):
            await asyncio.sleep(0)
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(results[0], BaseException):
            worker.limiter.settle(results[0], 0, books.now)
    await settled(books, "key:k", SEATS, 0)
    await settled(books, "key:k", TOKENS, 0)
    await leave(worker)
