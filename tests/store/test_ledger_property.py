"""Random concurrent requests, aborts, killed workers and ledgers killed and restarted, over real sockets: never over a limit."""

import asyncio
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.access.leases import Holder, Reservation
from penstock.access.limits import REQUESTS, SEATS, SPEND, SPEND_MINUTE, TOKENS
from penstock.core.errors import RateLimited, Unavailable
from penstock.core.snapshot import KeyEntry, Limits, TenantEntry
from tests.store.books import Books, RedisBooks, SocketBooks, Worker, until
from tests.store.redis_server import PROGRAM, RedisServer

TOKEN_LIMIT = 3000
MODEL_TOKEN_LIMIT = 2500
SEAT_LIMIT = 50
MINUTE_NANOUSD = 40_000
DAY_NANOUSD = 70_000
REQUEST_LIMIT = 100
PRICE = 15  # nano-dollars a token
KEY = KeyEntry(
    id="k",
    hash="",
    tenant="t",
    limits=Limits(
        requests_per_minute=REQUEST_LIMIT,
        tokens_per_minute=TOKEN_LIMIT,
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


class World:
    def __init__(self, books: Books, draws: random.Random) -> None:
        self.books = books
        self.draws = draws
        self.spent: list[Spent] = []
        self.counted: list[float] = []
        self.gateways: list[Gateway] = []
        self.names = 0

    async def join(self) -> None:
        self.names += 1
        self.gateways.append(Gateway(await self.books.join(f"w{self.names}")))

    async def kill(self, gateway: Gateway) -> None:
        self.gateways.remove(gateway)
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
            return
        one = Spent(now, amount, reservation)
        self.spent.append(one)
        gateway.running.append(one)
        self.check()

    def settle(self, gateway: Gateway) -> None:
        if gateway.running:
            one = gateway.running.pop(self.draws.randrange(len(gateway.running)))
            used = self.draws.choice([0, one.amount, self.draws.randint(0, one.amount)])
            gateway.limiter.settle(one.reservation, used, self.books.now, used * PRICE)
            one.amount = used
            one.running = False

    def check(self) -> None:
        now = self.books.now
        assert sum(one.running for one in self.spent) <= SEAT_LIMIT
        assert sum(at > now - 60 for at in self.counted) <= REQUEST_LIMIT
        minute = sum(one.amount for one in self.spent if one.at > now - 60)
        assert minute <= MODEL_TOKEN_LIMIT
        assert minute * PRICE <= MINUTE_NANOUSD
        assert sum(one.amount for one in self.spent if one.at > now - 86400) * PRICE <= DAY_NANOUSD

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
            self.books.now += draws.choice([0.1, 0.9, 2.5, 9.0, 14.0, 31.0, 31.0, 5000.0])
            await self.heard()
        elif what == "tick":
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
        self.books.kill()
        await asyncio.gather(*asking)
        for _ in range(3):
            self.settle(draws.choice(self.gateways))
        if away:
            await until(lambda: not any(g.worker.client.up for g in self.gateways))
            self.books.now += draws.choice([0.1, 2.5])
            await asyncio.gather(*(self.request(draws.choice(self.gateways), 10) for _ in range(4)))
            draws.choice(self.gateways).limiter.tick(self.books.now)
        await self.books.start()
        await self.heard()

    async def heard(self) -> None:
        workers = [gateway.worker for gateway in self.gateways]
        await self.books.joined(workers)
        await self.books.heard(workers)

    async def finish(self) -> None:
        """After all is settled no seat is held; what was spent is what is booked, but for what dead workers had; in the end it is all free."""
        for gateway in self.gateways:
            while gateway.running:
                self.settle(gateway)
            gateway.limiter.close(self.books.now)
        for _ in range(12):  # a dead worker is one that is silent for a while, the ledger being there
            self.books.now += 1.0
            await self.heard()
        async with asyncio.timeout(20):
            while await self.books.used("key:k", SEATS) or await self.books.used("tenant:t", SEATS):
                await asyncio.sleep(0.002)
        await self.heard()
        spent = sum(one.amount for one in self.spent if one.at > self.books.now - 86400) * PRICE
        assert await self.books.used("key:k", SPEND) >= spent
        self.books.now += 63
        for resource in (REQUESTS, TOKENS, SPEND_MINUTE):
            assert await self.books.used("key:k", resource) == 0
        self.books.now += 86400 + 400
        assert await self.books.used("key:k", SPEND) == 0
        for gateway in self.gateways:
            await gateway.worker.client.close()
        await self.books.close()


async def live(books: Books, seed: int, steps: int) -> None:
    world = World(books, random.Random(seed))
    await books.start()
    for _ in range(3):
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
