"""Random concurrent requests, aborts, killed workers and ledgers killed and restarted, over real sockets: never over a limit."""

import asyncio
import math
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.access.leases import Holder, Reservation
from penstock.access.limits import (
    COUNTS,
    REQUESTS,
    REQUESTS_DAY,
    RESOURCES,
    SEATS,
    SIZES,
    SPEND,
    SPEND_MINUTE,
    TOKENS,
    TOKENS_DAY,
)
from penstock.core.errors import RateLimited, Unavailable
from penstock.core.snapshot import KeyEntry, LedgerDown, Limits, TenantEntry
from tests.store.books import Books, RedisBooks, SocketBooks, Worker, until
from tests.store.redis_server import PROGRAM, RedisServer

TOKEN_LIMIT = 3000
MODEL_TOKEN_LIMIT = 2500
SEAT_LIMIT = 50
MINUTE_NANOUSD = 40_000
DAY_NANOUSD = 70_000
DAY_TOKENS = 4_500
REQUEST_LIMIT = 100
DAY_REQUESTS = 220
PRICE = 15  # nano-dollars a token
WORKERS = 3
BOOKED = (
    (REQUESTS, REQUEST_LIMIT),
    (REQUESTS_DAY, DAY_REQUESTS),
    (TOKENS, TOKEN_LIMIT),
    (TOKENS_DAY, DAY_TOKENS),
    (SPEND_MINUTE, MINUTE_NANOUSD),
    (SPEND, DAY_NANOUSD),
)  # with the key's limit on it
RESERVED = ((TOKENS, 1), (TOKENS_DAY, 1), (SPEND_MINUTE, PRICE), (SPEND, PRICE))  # with the price of a token in it
KEY = KeyEntry(
    id="k",
    hash="",
    tenant="t",
    limits=Limits(
        requests_per_minute=REQUEST_LIMIT,
        requests_per_day=DAY_REQUESTS,
        tokens_per_minute=TOKEN_LIMIT,
        tokens_per_day=DAY_TOKENS,
        concurrency=SEAT_LIMIT,
        usd_per_minute=MINUTE_NANOUSD / 1e9,
        usd_per_day=DAY_NANOUSD / 1e9,
    ),
    model_limits={"m": Limits(tokens_per_minute=MODEL_TOKEN_LIMIT)},
)
TENANT = TenantEntry(name="t", limits=Limits(tokens_per_minute=2 * TOKEN_LIMIT, concurrency=2 * SEAT_LIMIT))


class Spent:
    """One admitted request: what it may have used, and when."""

    def __init__(self, at: float, amount: int, reservation: Reservation) -> None:
        self.at = at
        self.amount = amount
        self.reservation = reservation
        self.running = True


class Gateway:
    """A worker, and the requests that run in it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.limiter = worker.limiter
        self.holder: Holder = worker.limiter.holder_on(KEY, TENANT, "m", Limits())
        self.running: list[Spent] = []
        self.untold = 0  # tokens beyond reservations, of which the ledger may not have heard yet


class World:
    """`down` is what workers do without their ledger: while it is away, `open` lets all of them together use up to one limit more."""

    def __init__(self, books: Books, draws: random.Random) -> None:
        self.books = books
        self.draws = draws
        self.down: LedgerDown = draws.choice(["closed", "closed", "open"])
        self.outages: list[float] = []
        self.unsure: list[
            tuple[float, int, int]
        ] = []  # when, of which resource, how much may be booked that nobody spent
        self.spent: list[Spent] = []
        self.counted: list[float] = []
        self.gateways: list[Gateway] = []
        self.names = 0
        self.excess = 0
        self.unheard: list[tuple[float, int]] = []  # when, how many tokens beyond reservations died with their worker

    async def join(self) -> None:
        self.names += 1
        worker = await self.books.join(f"w{self.names}", down=self.down, workers=WORKERS)
        self.gateways.append(Gateway(worker))

    async def kill(self, gateway: Gateway) -> None:
        self.gateways.remove(gateway)
        for account in gateway.limiter.book.accounts.values():
            if account.scope == "key:k":
                self.unsure.append((self.books.now, account.resource, account.balance))
        self.report(gateway)
        self.unheard.append((self.books.now, gateway.untold))
        await gateway.worker.kill()
        for one in gateway.running:
            one.running = False  # its seat is free with its process; its tokens and money count as spent
        await self.books.bury(gateway.worker)

    async def request(self, gateway: Gateway, amount: int) -> None:
        limiter, holder, now = gateway.limiter, gateway.holder, self.books.now
        try:
            if not limiter.try_count(holder, now):
                await limiter.count(holder, now)
            self.counted.append(now)
            reservation = limiter.try_reserve(holder, amount, now, amount * PRICE)
            if reservation is None:
                reservation = await limiter.reserve(holder, amount, now, amount * PRICE)
        except (RateLimited, Unavailable):
            return
        if gateway not in self.gateways:
            for resource, price in RESERVED:
                self.unsure.append((self.books.now, resource, amount * price))
            return
        one = Spent(now, amount, reservation)
        self.spent.append(one)
        gateway.running.append(one)
        self.check()

    def settle(self, gateway: Gateway) -> None:
        if gateway.running:
            one = gateway.running.pop(self.draws.randrange(len(gateway.running)))
            used = self.draws.choice([0, one.amount, self.draws.randint(0, one.amount), one.amount + 3])
            if used > one.amount:  # the estimate was too low: the rest is charged now, whatever the limit
                more = used - one.amount
                self.excess += more
                gateway.untold += more
                for resource, price in RESERVED:
                    self.unsure.append((self.books.now, resource, more * price))
            gateway.limiter.settle(one.reservation, used, self.books.now, used * PRICE)
            one.amount = used
            one.running = False

    def report(self, gateway: Gateway) -> None:
        """What it granted itself is told of later than it was spent, or never."""
        for account in gateway.limiter._sharing:
            if account.scope == "key:k" and account.share is not None:
                self.unsure.append((self.books.now, account.resource, account.share.used))

    def times(self, window_s: float) -> int:
        """How often a limit may have been used up in the last `window_s`: once, and with `open` once more for each outage since."""
        if self.down == "closed":
            return 1
        return 1 + sum(at > self.books.now - window_s - 3 for at in self.outages)

    def check(self) -> None:
        now = self.books.now
        minute, day = self.times(60), self.times(86400)
        assert sum(one.running for one in self.spent) <= SEAT_LIMIT * self.times(math.inf)
        assert sum(at > now - 60 for at in self.counted) <= REQUEST_LIMIT * minute
        assert sum(at > now - 86400 for at in self.counted) <= DAY_REQUESTS * day
        tokens = self.used(TOKENS, now - 60)
        assert tokens <= (MODEL_TOKEN_LIMIT if self.down == "closed" else TOKEN_LIMIT) * minute + self.excess
        assert tokens * PRICE <= MINUTE_NANOUSD * minute + self.excess * PRICE
        assert self.used(TOKENS_DAY, now - 86400) <= DAY_TOKENS * day + self.excess
        assert self.used(SPEND, now - 86400) <= DAY_NANOUSD * day + self.excess * PRICE

    def used(self, resource: int, since: float) -> int:
        """What was really spent, requests still running at what they hold."""
        if resource in COUNTS:
            return sum(at > since for at in self.counted)
        tokens = sum(one.amount for one in self.spent if one.at > since)
        return tokens if resource in SIZES else tokens * PRICE

    async def check_books(self) -> None:
        """All is settled and every lease is back: booked is what was spent, and at most what killed workers held.

        A ledger that is killed loses what it was being told: returns, so that more is booked for a window, and what was charged beyond a
        reservation, as a worker does that is killed in the moment in which it charges; with `open`, at most one limit for each outage, what workers granted themselves.
        """
        for resource, limit in BOOKED:
            one, now = RESOURCES[resource], self.books.now
            booked = await self.books.used("key:k", resource)
            late = now - one.window_s - 2 * one.slot_s - one.lease_s
            outages = sum(at > late for at in self.outages)
            lost = 0
            if resource not in COUNTS:
                beyond = self.excess if outages else sum(tokens for at, tokens in self.unheard if at > late)
                lost = beyond * (1 if resource in SIZES else PRICE)
            if self.down == "open":
                lost += limit * outages
            assert booked >= self.used(resource, now - one.window_s) - lost, resource
            if not outages:
                held = sum(amount for at, kind, amount in self.unsure if kind == resource and at > late)
                assert booked <= self.used(resource, late) + held, resource

    async def step(self) -> None:
        draws = self.draws
        what = draws.choices(
            ["requests", "settle", "abort", "time", "tick", "kill", "restart", "away"], [14, 8, 3, 7, 3, 1, 1, 1]
        )[0]
        gateway = draws.choice(self.gateways)
        if what == "requests":
            least, most, many = draws.choice(
                [(1, 6, 25), (1, 12, 12), (100, 700, 5)]
            )  # many that fit into leases, or few that do not
            wanted = [draws.randint(least, most) for _ in range(draws.randint(1, many))]
            await asyncio.gather(*(self.request(draws.choice(self.gateways), amount) for amount in wanted))
        elif what == "settle":
            for _ in range(draws.randint(1, 20)):
                self.settle(draws.choice(self.gateways))
        elif what == "abort":
            task = asyncio.create_task(self.request(gateway, draws.randint(1, 600)))
            for _ in range(draws.randint(0, 6)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif what == "time":
            await self.heard()  # what is on its way belongs to the time in which it was sent
            self.books.now += draws.choice([0.1, 0.9, 2.5, 9.0, 14.0, 31.0, 31.0, 5000.0])
            await self.heard()
        elif what == "tick":
            self.report(gateway)
            gateway.limiter.tick(self.books.now)
        elif what == "kill":
            await self.kill(gateway)
            await self.join()
        else:
            await self.restart(away=what == "away")

    async def restart(self, *, away: bool) -> None:
        """Kill the ledger, while requests are on their way or none is; `away`: let work go on without it."""
        draws = self.draws
        asking = [
            asyncio.create_task(self.request(draws.choice(self.gateways), 300)) for _ in range(draws.randint(0, 3))
        ]
        for _ in range(draws.randint(0, 4)):
            await asyncio.sleep(0)
        self.outages.append(self.books.now)
        self.books.kill()
        await asyncio.gather(*asking)
        for _ in range(3):
            self.settle(draws.choice(self.gateways))
        if away:
            await until(lambda: not any(g.worker.client.up for g in self.gateways))
            self.books.now += draws.choice([0.1, 2.5])
            await asyncio.gather(*(self.request(draws.choice(self.gateways), 10) for _ in range(4)))
            draws.choice(self.gateways).limiter.tick(self.books.now)
            self.outages.append(self.books.now)
        await self.books.start()
        await self.heard()

    async def heard(self) -> None:
        workers = [gateway.worker for gateway in self.gateways]
        await self.books.joined(workers)
        await self.books.heard(workers)
        for gateway in self.gateways:
            gateway.untold = 0

    async def finish(self) -> None:
        """After all is settled no seat is held; what was spent is what is booked, but for what dead workers had; in the end it is all free."""
        for gateway in self.gateways:
            while gateway.running:
                self.settle(gateway)
            self.report(gateway)
            gateway.limiter.close(self.books.now)
        await self.heard()
        for _ in range(12):  # a dead worker is one that is silent for a while, the ledger being there
            self.books.now += 1.0
            await self.heard()
        async with asyncio.timeout(20):
            while await self.books.used("key:k", SEATS) or await self.books.used("tenant:t", SEATS):
                await asyncio.sleep(0.002)
        await self.heard()
        await self.check_books()
        self.books.now += 63
        for resource in (REQUESTS, TOKENS, SPEND_MINUTE):
            assert await self.books.used("key:k", resource) == 0
        self.books.now += 86400 + 400
        for resource in (REQUESTS_DAY, TOKENS_DAY, SPEND):
            assert await self.books.used("key:k", resource) == 0
        for gateway in self.gateways:
            await gateway.worker.client.close()
        await self.books.close()


async def live(books: Books, seed: int, steps: int) -> None:
    world = World(books, random.Random(seed))
    await books.start()
    for _ in range(WORKERS):
        await world.join()
    for _ in range(steps):
        await world.step()
    assert world.spent
    await world.finish()


def over(make: Callable[[Path], tuple[Books, RedisServer | None]], seed: int, steps: int) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            books, server = make(Path(folder))
            try:
                await live(books, seed, steps)
            finally:
                if server is not None:
                    server.kill()

    asyncio.run(main())


def with_the_supervisors(folder: Path) -> tuple[Books, RedisServer | None]:
    return SocketBooks(folder), None


def with_redis(folder: Path) -> tuple[Books, RedisServer | None]:
    server = RedisServer(folder / "redis")
    return RedisBooks(folder, server), server


needs_redis = pytest.mark.skipif(PROGRAM is None, reason="there is no redis-server here")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_never_over_whatever_happens_with_the_supervisors_ledger(seed: int) -> None:
    over(with_the_supervisors, seed, 60)


@needs_redis
@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32))
def test_never_over_whatever_happens_with_redis(seed: int) -> None:
    over(with_redis, seed, 40)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32))
def test_never_over_in_a_thousand_lives_with_the_supervisors_ledger(seed: int) -> None:
    over(with_the_supervisors, seed, 100)


@needs_redis
@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_never_over_in_a_hundred_lives_with_redis(seed: int) -> None:
    over(with_redis, seed, 80)
