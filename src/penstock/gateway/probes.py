"""Asks replicas whether they are well: those that are left out, and those that nobody has asked anything lately."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from penstock.core.errors import PenstockError
from penstock.core.snapshot import Pool
from penstock.gateway.pools import Pools, PoolState
from penstock.net.client import Client, Timeouts, parse_origin
from penstock.routing.member import Member

_LOOK_S = 0.2
_REVIEW_S = 2.0  # between two comparisons of replicas with their peers
_MOST = 64  # probes at a time
_ANSWER_S = 2.0


class Probes:
    """The loop of one worker. `draw` gives uniform numbers in [0, 1), so that workers do not ask all at once."""

    def __init__(self, pools: Pools, client: Client, draw: Callable[[], float]) -> None:
        self._pools = pools
        self._client = client
        self._draw = draw
        self._running: set[asyncio.Task[None]] = set()
        self._asked: set[Member] = set()
        self._review_at = 0.0

    async def run(self) -> None:
        """Probes and compares until cancelled."""
        try:
            while True:
                await asyncio.sleep(_LOOK_S * (0.75 + 0.5 * self._draw()))
                self.look(time.monotonic())
        finally:
            for task in self._running:
                task.cancel()

    def look(self, now: float) -> None:
        """Begins the probes that are due, and from time to time a comparison."""
        reviews = now >= self._review_at
        if reviews:
            self._review_at = now + _REVIEW_S
        for state in self._pools.all():
            if reviews:
                state.balancer.review(now)
            state.resize()
            for member in state.balancer.due(now):
                if member not in self._asked and len(self._running) < _MOST:
                    self._asked.add(member)
                    task = asyncio.create_task(self._probe(state, member))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)

    async def _probe(self, state: PoolState, member: Member) -> None:
        pool = state.pool
        try:
            ok = await self._answers(pool, member)
        finally:
            self._asked.discard(member)
        pause_s = pool.health.probe_s * (0.75 + 0.5 * self._draw())
        state.balancer.probed(member, ok, time.monotonic(), pause_s)

    async def _answers(self, pool: Pool, member: Member) -> bool:
        """Whether anything below 500 comes back: a server without such a path is a server that answers."""
        path = pool.health.probe_path or ("/readyz" if pool.build else "/health")
        timeouts = Timeouts(connect_s=min(pool.connect_timeout_s, _ANSWER_S), first_byte_s=_ANSWER_S, stall_s=_ANSWER_S)
        try:
            response = await self._client.request(
                parse_origin(member.replica.url), b"GET", path.encode(), timeouts=timeouts
            )
            await response.read(65536)
        except PenstockError:
            return False
        return response.status < 500
