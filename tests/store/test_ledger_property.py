"""Random concurrent reservations, settlements, aborts, dead workers and restarted ledgers, over real sockets: never over a limit."""

import asyncio
import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.access.leases import Reservation
from penstock.access.limits import SEATS, TOKENS
from penstock.core.errors import RateLimited, Unavailable
from penstock.core.snapshot import KeyEntry, Limits, TenantEntry
from penstock.store.ledger_log import LedgerLog
from penstock.store.ledger_socket import LedgerServer, SocketLedger
from penstock.store.limiter import Limiter
from tests.store.asking import reserve

TOKEN_LIMIT = 300
SEAT_LIMIT = 5
KEY = KeyEntry(id="k", hash="", tenant="t", limits=Limits(tokens_per_minute=TOKEN_LIMIT, concurrency=SEAT_LIMIT))
TENANT = TenantEntry(name="t", limits=Limits(tokens_per_minute=2 * TOKEN_LIMIT))


class Spent:
    """One admitted request: what it may have used, and when."""

    def __init__(self, at: float, amount: int, reservation: Reservation) -> None:
        self.at = at
        self.amount = amount
        self.reservation = reservation
        self.running = True


class Worker:
    def __init__(self, client: SocketLedger, limiter: Limiter) -> None:
        self.client = client
        self.limiter = limiter
        self.running: list[Spent] = []


class World:
    def __init__(self, folder: Path, draws: random.Random) -> None:
        self.folder = folder
        self.draws = draws
        self.now = 1000.0
        self.spent: list[Spent] = []
        self.workers: list[Worker] = []
        self.names = 0
        self.served = 0

    async def serve(self) -> None:
        self.server = LedgerServer(self.folder / "s", clock=lambda: self.now, log=LedgerLog(self.folder / "log"))
        await self.server.start()

    async def join(self) -> None:
        self.names += 1
        client = SocketLedger(self.folder / "s", f"w{self.names}", clock=asyncio.get_running_loop().time)
        limiter = Limiter(client, down="closed")
        client.seats = limiter.book.seats
        await client.start()
        async with asyncio.timeout(10):
            while f"w{self.names}" not in self.server.sessions:
                await asyncio.sleep(0.002)
        self.workers.append(Worker(client, limiter))

    def kill_server(self) -> None:
        """As SIGKILL would: nothing more is written, every connection breaks."""
        server = self.server
        server.closing = True
        if server._log is not None:
            server._log.close()
            server._log = None
        assert server._server is not None
        server._server.close()
        for session in list(server._all):
            assert session.transport is not None
            session.transport.abort()

    async def kill_worker(self, worker: Worker) -> None:
        self.workers.remove(worker)
        assert worker.client._task is not None
        worker.client._task.cancel()
        link = worker.client._link
        if link is not None and link.transport is not None:
            link.transport.abort()
        for one in worker.running:
            one.running = False  # its seat is free with its process; its tokens count as spent
        await asyncio.sleep(0)

    async def request(self, worker: Worker, amount: int) -> None:
        try:
            reservation = await reserve(worker.limiter, KEY, TENANT, amount, self.now)
        except (RateLimited, Unavailable):
            return
        assert reservation is not None
        one = Spent(self.now, amount, reservation)
        self.spent.append(one)
        worker.running.append(one)
        self.served += 1
        self.check()

    def settle(self, worker: Worker) -> None:
        if worker.running:
            one = worker.running.pop(self.draws.randrange(len(worker.running)))
            used = self.draws.choice([0, one.amount, self.draws.randint(0, one.amount)])
            worker.limiter.settle(one.reservation, used, self.now)
            one.amount = used
            one.running = False

    def check(self) -> None:
        assert sum(one.running for one in self.spent) <= SEAT_LIMIT
        assert sum(one.amount for one in self.spent if one.at > self.now - 60) <= TOKEN_LIMIT

    async def step(self) -> None:
        draws = self.draws
        what = draws.choices(
            ["requests", "settle", "abort", "time", "tick", "kill", "restart"], [10, 10, 3, 6, 3, 1, 1]
        )[0]
        worker = draws.choice(self.workers)
        if what == "requests":
            await asyncio.gather(
                *(self.request(draws.choice(self.workers), draws.randint(1, 60)) for _ in range(draws.randint(1, 6)))
            )
        elif what == "settle":
            for _ in range(draws.randint(1, 4)):
                self.settle(draws.choice(self.workers))
        elif what == "abort":
            task = asyncio.create_task(self.request(worker, draws.randint(1, 60)))
            for _ in range(draws.randint(0, 6)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif what == "time":
            self.now += draws.choice([0.1, 0.9, 3.0, 20.0, 61.0])
        elif what == "tick":
            worker.limiter.tick(self.now)
        elif what == "kill":
            await self.kill_worker(worker)
            await self.join()
        else:
            self.kill_server()
            for _ in range(3):
                self.settle(draws.choice(self.workers))
            await self.serve()
            async with asyncio.timeout(10):
                while len(self.server.sessions) < len(self.workers):
                    await asyncio.sleep(0.002)

    async def finish(self) -> None:
        """After all is settled, nothing is reserved; after a minute, nothing is used."""
        for worker in self.workers:
            while worker.running:
                self.settle(worker)
            worker.limiter.close(self.now)
        async with asyncio.timeout(10):
            while self.server.used("key:k", SEATS):
                await asyncio.sleep(0.002)
        self.now += 63
        assert self.server.used("key:k", TOKENS) == 0
        for worker in self.workers:
            await worker.client.close()
        await self.server.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_never_over_whatever_happens(seed: int) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder), random.Random(seed))
            await world.serve()
            for _ in range(3):
                await world.join()
            for _ in range(40):
                await world.step()
            await world.finish()
            assert world.served > 0

    asyncio.run(main())
