"""Series of what is gone leave: routes, tenants, versions and arms that no Snapshot has had for an hour.

Until then they are told on, so that a scraper sees what their last requests added.
"""

from __future__ import annotations

import asyncio
import time

from penstock.core.snapshot import Snapshot
from penstock.gateway.gateway import Gateway
from penstock.gateway.metrics import OTHER

KEPT_S = 3600.0
EVERY_S = 60.0


class Sweep:
    """Of one worker. Run it as a task."""

    def __init__(self, gateway: Gateway, *, kept_s: float = KEPT_S) -> None:
        self._gateway = gateway
        self._kept_s = kept_s
        self._since: dict[tuple[str, str], float] = {}  # when a label's value was first seen to be gone

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Lets go of what has been gone for long enough at `now`, in seconds of any clock."""
        meters = self._gateway.meters
        living = living_values(self._gateway.index.snapshot)
        gone = {
            (label, value)
            for label, value in meters.values()
            if value and value != OTHER and label in living and value not in living[label]
        }
        self._since = {pair: self._since.get(pair, now) for pair in gone}
        over = {pair for pair, since in self._since.items() if now - since >= self._kept_s}
        if over:
            meters.forget(over)


def living_values(snapshot: Snapshot) -> dict[str, set[str]]:
    """What a Snapshot has, by label."""
    routes = {route.name for route in snapshot.routes}
    experiments = [route.experiment for route in snapshot.routes if route.experiment is not None]
    return {
        "route": routes,
        "gen_ai_request_model": routes,
        "tenant": {tenant.name for tenant in snapshot.tenants},
        "version": {pool.version for pool in snapshot.pools},
        "experiment": {experiment.name for experiment in experiments},
        "arm": {arm.name for experiment in experiments for arm in experiment.arms},
    }
