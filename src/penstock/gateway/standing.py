"""What `/metrics` tells of pools: read off their balancers when it is asked, so that requests pay nothing for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from penstock.gateway.metrics import Meters
from penstock.gateway.pools import Pools

_CONDITIONS = ("up", "slow_start", "trial", "out")
_Numbers = Iterator[tuple[tuple[str, ...], float]]


class Standing:
    """The readers of one worker's pools."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def register(self, meters: Meters) -> None:
        """Has `meters` read them."""
        meters.gauge("penstock_replica_up", self._up)
        meters.gauge("penstock_replica_state", self._state)
        meters.gauge("penstock_replica_in_flight", self._in_flight)
        meters.gauge("penstock_replica_ejections_total", self._ejections)
        meters.gauge("penstock_affinity_total", self._affinity)
        meters.gauge("penstock_retries_total", self._retries)
        meters.gauge("penstock_hedges_total", self._hedges)

    def out(self) -> list[str]:
        """POOL/REPLICA of those that are left out, or tried after a pause."""
        return [
            f"{state.pool.name}/{member.replica.id}"
            for state in self._pools.all()
            for member in state.balancer.members
            if member.out_until
        ]

    def _up(self) -> _Numbers:
        now = time.monotonic()
        for state in self._pools.all():
            for member in state.balancer.members:
                yield (state.pool.name, member.replica.id), float(member.condition(now) != "out")

    def _state(self) -> _Numbers:
        now = time.monotonic()
        for state in self._pools.all():
            for member in state.balancer.members:
                current = member.condition(now)
                for condition in _CONDITIONS:
                    yield (state.pool.name, member.replica.id, condition), float(condition == current)

    def _in_flight(self) -> _Numbers:
        for state in self._pools.all():
            for member in state.balancer.members:
                yield (state.pool.name, member.replica.id), float(member.in_flight)

    def _ejections(self) -> _Numbers:
        for state in self._pools.all():
            for (replica, reason), count in state.balancer.ejections.items():
                yield (state.pool.name, replica, reason), float(count)

    def _affinity(self) -> _Numbers:
        for state in self._pools.all():
            balancer = state.balancer
            if balancer.by_prefix:
                yield (state.pool.name, "near"), float(balancer.near)
                yield (state.pool.name, "far"), float(balancer.far)

    def _retries(self) -> _Numbers:
        for state in self._pools.all():
            budget = state.balancer.retries
            yield (state.pool.name, "sent"), float(budget.taken)
            yield (state.pool.name, "refused"), float(budget.refused)

    def _hedges(self) -> _Numbers:
        for state in self._pools.all():
            budget = state.balancer.hedges
            if budget.taken or budget.refused:
                yield (state.pool.name, "sent"), float(budget.taken)
                yield (state.pool.name, "won"), float(budget.won)
                yield (state.pool.name, "refused"), float(budget.refused)
