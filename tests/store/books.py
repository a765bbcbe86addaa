"""The ledgers that several workers can share, each as the contract suite and the property test want it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from redis.asyncio import Redis

from penstock.access.limits import RESOURCES, SEATS
from penstock.access.register import Want
from penstock.core.snapshot import LedgerDown
from penstock.store.ledger_log import LedgerLog
from penstock.store.ledger_redis import PREFIX, RedisLedger
from penstock.store.ledger_socket import LedgerServer, SocketLedger
from penstock.store.limiter import Limiter
from tests.store.redis_server import RedisServer


async def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.002)


class Worker:
    """One gateway worker's side."""

    def __init__(self, name: str, client: SocketLedger | RedisLedger, limiter: Limiter) -> None:
        self.name = name
        self.client = client
        self.limiter = limiter

    async def kill(self) -> None:
        """As SIGKILL would: nothing more is said, and its connection breaks."""
        client = self.client
        assert client._task is not None
        client._task.cancel()
        await asyncio.gather(client._task, return_exceptions=True)
        if isinstance(client, SocketLedger):
            if client._link is not None and client._link.transport is not None:
                client._link.transport.abort()
            await asyncio.sleep(0)
        else:
            client._fail_all()
            client._up = False
            await client._redis.aclose()


class Books(Protocol):
    """A shared ledger that can be killed and started again; its time is `now`, Unix seconds."""

    now: float

    async def start(self) -> None: ...
    def kill(self) -> None: ...
    async def close(self) -> None: ...
    async def join(self, name: str, *, down: LedgerDown = "closed", workers: int = 1) -> Worker: ...
    async def used(self, scope: str, resource: int) -> int: ...
    async def joined(self, workers: list[Worker]) -> None:
        """Wait until all of them have joined (again)."""

    async def heard(self, workers: list[Worker]) -> None:
        """Wait until all of them have been heard of at the present time."""

    async def bury(self, worker: Worker) -> None:
        """Wait until the killed worker is known to be dead."""


class SocketBooks:
    def __init__(self, folder: Path) -> None:
        self.now = 1_000_000.0
        self._folder = folder
        self._server: LedgerServer | None = None

    async def start(self) -> None:
        log = LedgerLog(self._folder / "log")
        self._server = LedgerServer(self._folder / "s", clock=lambda: self.now, log=log)
        await self._server.start()

    def kill(self) -> None:
        """As SIGKILL would: nothing more is written, every connection breaks."""
        server = self._server
        assert server is not None
        server.closing = True
        for timer in (server._grace, server._sweeper):
            if timer is not None:
                timer.cancel()
        if server._log is not None:
            server._log.close()
            server._log = None
        assert server._server is not None
        server._server.close()
        for session in list(server._all):
            if session.transport is not None:
                session.transport.abort()
        self._server = None

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def join(self, name: str, *, down: LedgerDown = "closed", workers: int = 1) -> Worker:
        client = SocketLedger(self._folder / "s", name, clock=asyncio.get_running_loop().time)
        limiter = Limiter(client, down=down, workers=workers)
        client.seats = limiter.book.seats
        await client.start()
        worker = Worker(name, client, limiter)
        if self._server is not None:
            await self.joined([worker])
        return worker

    async def used(self, scope: str, resource: int) -> int:
        assert self._server is not None
        return self._server.used(scope, resource)

    async def joined(self, workers: list[Worker]) -> None:
        server = self._server
        assert server is not None
        await until(lambda: {w.name for w in workers} <= set(server.sessions))

    async def heard(self, workers: list[Worker]) -> None:
        """A question's answer tells that all before it was heard; what a late answer brought is given back before the second."""
        for _ in range(2):
            for worker in workers:
                await worker.client.grant([Want(f"heard:{worker.name}", SEATS, 10**9, 0)], self.now)

    async def bury(self, worker: Worker) -> None:
        server = self._server
        assert server is not None
        await until(lambda: worker.name not in server.sessions)


class RedisBooks:
    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.now = 1_000_000.0
        self._server = server
        self._prefix = f"{PREFIX}{folder.name}:"
        self._clients: list[RedisLedger] = []
        self._alive = False

    async def start(self) -> None:
        await self._server.start()
        self._alive = True

    def kill(self) -> None:
        """Every worker asks soon after, and so notices."""
        self._server.kill()
        self._alive = False
        for client in self._clients:
            client._wake.set()

    async def close(self) -> None:
        """The server is its owner's to stop."""

    async def join(self, name: str, *, down: LedgerDown = "closed", workers: int = 1) -> Worker:
        client = RedisLedger(
            self._server.url,
            name,
            clock=asyncio.get_running_loop().time,
            unix=lambda: self.now,
            prefix=self._prefix,
        )
        self._clients.append(client)
        limiter = Limiter(client, down=down, workers=workers)
        client.seats = limiter.book.seats
        await client.start()
        worker = Worker(name, client, limiter)
        if self._alive:
            await self.joined([worker])
        return worker

    async def used(self, scope: str, resource: int) -> int:
        async with Redis.from_url(self._server.url, decode_responses=True) as redis:
            if resource == SEATS:
                return sum(int(n) for n in await redis.hvals(f"{self._prefix}seats:{scope}"))
            book = await redis.hgetall(f"{self._prefix}use:{resource}:{scope}")
        one = RESOURCES[resource]
        slots = {int(slot): int(n) for slot, n in book.items() if slot.isdigit()}
        return sum(n for slot, n in slots.items() if (slot + 1) * one.slot_s + one.window_s > self.now)

    async def joined(self, workers: list[Worker]) -> None:
        await until(lambda: all(w.client.up for w in workers))

    async def heard(self, workers: list[Worker]) -> None:
        await self._heard([w.client for w in workers if isinstance(w.client, RedisLedger)])

    async def bury(self, worker: Worker) -> None:
        """Silence is how it shows, while the others go on."""
        others = [c for c in self._clients if c._task is not None and not c._task.done()]
        async with Redis.from_url(self._server.url) as redis:
            async with asyncio.timeout(30):
                while await redis.zscore(f"{self._prefix}alive", worker.name) is not None:
                    self.now += 1.0
                    await self._heard(others)
                    if not others:
                        return

    async def _heard(self, clients: list[RedisLedger]) -> None:
        for client in clients:
            before = client._number
            client._wake.set()
            await until(lambda client=client, before=before: client._number > before and client.up)  # type: ignore[misc]
