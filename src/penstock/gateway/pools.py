"""What one worker knows of a pool from request to request: its balancer, and who waits for a place."""

from __future__ import annotations

import asyncio

from penstock.core.errors import PenstockError, RateLimited, Unavailable
from penstock.core.exchange import Usage
from penstock.core.snapshot import Pool, TenantEntry
from penstock.gateway.index import Index
from penstock.gateway.metrics import Meters
from penstock.routing.balancer import Balancer
from penstock.routing.fair import Account, FairQueue, Refusal, Ticket
from penstock.routing.service_rate import ServiceRate

Place = Account["asyncio.Future[None]"]  # whose a place is: what `leave` must be told
_Ticket = Ticket["asyncio.Future[None]"]


class PoolState:
    """Places in one pool: as many as its replicas may have in flight, those that are left out not counted.

    Who finds none waits, bounded in number and in time, and in the order of `routing.fair`.

    Attributes:
        taken: places that are taken now.
        faulty: whether what the Snapshot says of the pool cannot be used.
    """

    __slots__ = ("_loop", "_meters", "_places", "_queue", "_rate", "balancer", "faulty", "pool", "taken")

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop, meters: Meters) -> None:
        self._loop = loop
        self._meters = meters
        self._rate = ServiceRate()
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(pool)
        self.balancer = Balancer(pool)
        self.taken = 0
        self.faulty = False
        self.update(pool)

    def update(self, pool: Pool) -> None:
        """Takes the pool's entry of a new Snapshot."""
        self.pool = pool
        self.balancer.update(pool)
        self._queue.update(pool)
        self._places = 0
        self.resize()

    def resize(self) -> None:
        """Counts the places anew; to be asked when replicas may have failed or come back.

        While all are left out there are places for one: its requests find out whether it is back.
        """
        pool = self.pool
        balancer = self.balancer
        places = pool.max_in_flight * max(1, balancer.able) + balancer.stranded if pool.replicas else 0
        if places != self._places:
            self._places = places
            self._wake()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._queue.waiting

    def waiting_by_priority(self) -> list[tuple[str, int]]:
        """How many of each class wait for a place."""
        return list(self._queue.by_priority())

    def try_enter(self, tenant: TenantEntry, tokens: int) -> Place | None:
        """A place, if one is free and nobody waits for it; each one is given back by `leave`.

        Args:
            tenant: whose request it is.
            tokens: its input, as estimated; `leave` is told the same number.
        """
        if self.taken >= self._places or self._queue.waiting:
            return None
        self.taken += 1
        return self._queue.admit(tenant, tokens)

    async def enter(self, tenant: TenantEntry, tokens: int) -> Place:
        """A place, now or when it is the request's turn; each one is given back by `leave`.

        Raises:
            RateLimited: at once if what the tenant has waiting already is in the way.
            Unavailable: at once if the pool has no replica, its queue is full, or its time would not suffice; else if it did not.
        """
        place = self.try_enter(tenant, tokens)
        if place is not None:
            return place
        pool, queue, loop = self.pool, self._queue, self._loop
        if not pool.replicas:
            if self.faulty:
                raise Unavailable(
                    f"What is configured for the pool {pool.name!r} cannot be used; `penstock doctor` tells its operator why.",
                    code="pool_unusable",
                )
            raise Unavailable(f"The pool {pool.name!r} has no replica that is ready.", code="no_replica", retry_after=1)
        now = loop.time()
        account = queue.account(tenant)
        deadline_s = pool.queue.deadline_s.get(tenant.priority, pool.max_wait_s)
        refusal = queue.refusal(account, self._rate.a_second(now), deadline_s)
        if refusal is not None:
            self._refused(refusal.reason)
            raise _told(refusal, pool, deadline_s)
        if not queue.waiting:
            self._rate.began(now)
        turn: asyncio.Future[None] = loop.create_future()
        ticket = queue.push(account, tokens, turn)
        timer = loop.call_later(deadline_s, self._expire, ticket, deadline_s)
        try:
            await turn
        except asyncio.CancelledError:
            if ticket.waits:
                queue.remove(ticket)
            elif not turn.cancelled() and turn.exception() is None:
                self._refund(ticket)  # the place came in the moment in which its taker gave up
            raise
        finally:
            timer.cancel()
        self._meters.distribution("penstock_queue_wait_seconds", pool.name, account.line.priority).observe(
            loop.time() - now
        )
        return account

    def leave(self, place: Place, tokens: int, usage: Usage) -> None:
        """Gives a place back, and charges its tenant what was used of it."""
        self.taken -= 1
        queue = self._queue
        cost = queue.settle(place, tokens, usage)
        if queue.waiting:
            self._rate.ended(cost, self._loop.time())
            self._wake()

    def _wake(self) -> None:
        queue = self._queue
        while queue.waiting and self.taken < self._places:
            ticket = queue.pop()
            if ticket is None:
                return
            if ticket.item.done():  # its client has left, and its task has not run since
                queue.refund(ticket.account, ticket.tokens)
                continue
            self.taken += 1
            ticket.item.set_result(None)

    def _refund(self, ticket: _Ticket) -> None:
        self.taken -= 1
        self._queue.refund(ticket.account, ticket.tokens)
        self._wake()

    def _expire(self, ticket: _Ticket, deadline_s: float) -> None:
        if not ticket.waits:
            return
        queue = self._queue
        queue.remove(ticket)
        if ticket.item.done():
            return
        self._refused("timeout")
        pool = self.pool
        ticket.item.set_exception(
            Unavailable(
                f"No replica of the pool {pool.name!r} came free within {deadline_s:g} s.",
                code="queue_timeout",
                retry_after=max(1.0, min(deadline_s, 30.0)),
            )
        )

    def _refused(self, reason: str) -> None:
        self._meters.cell("penstock_queue_refusals_total", self.pool.name, reason).value += 1


def _told(refusal: Refusal, pool: Pool, deadline_s: float) -> PenstockError:
    """What the client is told."""
    if refusal.reason == "full":
        return Unavailable(
            f"The queue of the pool {pool.name!r} is full: {pool.max_waiting} requests wait.",
            code="queue_full",
            retry_after=refusal.retry_after_s,
        )
    if refusal.reason == "share":
        return RateLimited(
            f"Your requests that wait for the pool {pool.name!r} use up your share of its queue.",
            code="queue_share",
            retry_after=refusal.retry_after_s,
        )
    text = f"The queue of the pool {pool.name!r} takes about {refusal.wait_s:.0f} s now; a request may wait {deadline_s:g} s."
    if refusal.own:
        return RateLimited(text, code="queue_hopeless", retry_after=refusal.retry_after_s)
    return Unavailable(text, code="queue_hopeless", retry_after=refusal.retry_after_s)


class Pools:
    """All pools, by name; those that stay from Snapshot to Snapshot keep their state."""

    def __init__(self, meters: Meters) -> None:
        self._states: dict[str, PoolState] = {}
        self._meters = meters

    def update(self, index: Index, loop: asyncio.AbstractEventLoop) -> None:
        """Takes a new Snapshot."""
        states: dict[str, PoolState] = {}
        for name, entry in index.pools.items():
            state = self._states.get(name)
            if state is None:
                state = PoolState(entry.pool, loop, self._meters)
            else:
                state.update(entry.pool)
            state.faulty = bool(entry.fault)
            states[name] = state
        self._states = states

    def get(self, name: str) -> PoolState | None:
        """The state of the pool `name`."""
        return self._states.get(name)

    def all(self) -> list[PoolState]:
        """Every pool's state."""
        return list(self._states.values())
