"""What one worker knows of a pool from request to request: its balancer, and who waits for a place."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from penstock.core.errors import Unavailable
from penstock.core.snapshot import Pool
from penstock.gateway.index import Index
from penstock.routing.balancer import Balancer


class PoolState:
    """Places in one pool: as many as its replicas may have in flight; who finds none waits, in order, bounded in number and time."""

    __slots__ = ("_loop", "_places", "_waiters", "balancer", "pool", "taken")

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.balancer = Balancer(pool)
        self.taken = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.update(pool)

    def update(self, pool: Pool) -> None:
        """Takes the pool's entry of a new Snapshot."""
        self.pool = pool
        self.balancer.update(pool)
        self._places = pool.max_in_flight * len(pool.replicas)
        self._wake()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    def try_enter(self) -> bool:
        """Takes a place if one is free and nobody waits for it."""
        if self.taken < self._places and not self._waiters:
            self.taken += 1
            return True
        return False

    async def enter(self) -> None:
        """Takes a place; each `enter` that returns is followed by one `leave`.

        Raises:
            Unavailable: at once if the pool has no replica or its queue is full, else if no place came free in time.
        """
        if self.try_enter():
            return
        pool = self.pool
        if not pool.replicas:
            raise Unavailable(f"The pool {pool.name!r} has no replica that is ready.", code="no_replica", retry_after=1)
        if len(self._waiters) >= pool.max_waiting:
            raise Unavailable(
                f"The queue of the pool {pool.name!r} is full: {pool.max_waiting} requests wait.",
                code="queue_full",
                retry_after=1,
            )
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(pool.max_wait_s):
                await waiter
        except TimeoutError:
            raise Unavailable(
                f"No replica of the pool {pool.name!r} came free within {pool.max_wait_s} s.",
                code="queue_timeout",
                retry_after=1,
            ) from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave()  # the place came in the moment in which its taker gave up
            raise
        finally:
            if not waiter.done() or waiter.cancelled():
                with suppress(ValueError):
                    self._waiters.remove(waiter)

    def leave(self) -> None:
        """Gives a place back."""
        self.taken -= 1
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        while self._waiters and self.taken < self._places:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.taken += 1
                waiter.set_result(None)


class Pools:
    """All pools, by name; those that stay from Snapshot to Snapshot keep their state."""

    def __init__(self) -> None:
        self._states: dict[str, PoolState] = {}

    def update(self, index: Index, loop: asyncio.AbstractEventLoop) -> None:
        """Takes a new Snapshot."""
        states: dict[str, PoolState] = {}
        for name, entry in index.pools.items():
            state = self._states.get(name)
            if state is None:
                state = PoolState(entry.pool, loop)
            else:
                state.update(entry.pool)
            states[name] = state
        self._states = states

    def get(self, name: str) -> PoolState | None:
        """The state of the pool `name`."""
        return self._states.get(name)

    def all(self) -> list[PoolState]:
        """Every pool's state."""
        return list(self._states.values())
