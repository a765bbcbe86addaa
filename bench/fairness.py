"""`make bench-fairness`: what tenants see of each other on a slow pool, over the real gateway, in ratios.

- Isolation: B's p99 wait while A floods, over what it may be: its p99 alone on a pool of its share's size plus one longest service time.
- Weights: served cost per weight of tenants that always have something waiting, over their mean.
- Cost: entering and leaving a pool in which nobody waits.

Gateway, engine and clients share one process, so a busy machine makes every time longer, services included.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from penstock.core.exchange import Usage
from penstock.core.snapshot import Pool, Replica, TenantEntry
from penstock.gateway.metrics import Meters
from penstock.gateway.pools import PoolState
from tests.gateway.house import until
from tests.gateway.slow_pool import A, B, slow_pool

TOKENS = 20
TOKEN_S = 0.002
SERVICE_S = TOKENS * TOKEN_S
PLACES = 2
SHARE = PLACES / SERVICE_S / 2  # requests a second


async def isolation(load: float, pace: str, flood: float, seconds: float) -> dict[str, float]:
    """B asks at `load` of its share, in even steps or as a Poisson process; A at `flood` times its own."""

    def draw() -> random.Random | None:
        return random.Random(3) if pace == "random" else None

    with tempfile.TemporaryDirectory() as folder:
        async with (
            slow_pool(Path(folder) / "shared", places=PLACES, token_s=TOKEN_S) as shared,
            slow_pool(Path(folder) / "alone", places=PLACES // 2, token_s=TOKEN_S) as alone,
        ):
            began = time.monotonic()
            flooding = asyncio.create_task(shared.at_pace(A, TOKENS, flood * SHARE, began + 600.0, None))
            await until(lambda: shared.house.worker.gateway.pools.all()[0].waiting > 8, 60.0)
            end = time.monotonic() + seconds
            await asyncio.gather(
                shared.at_pace(B, TOKENS, load * SHARE, end, draw()),
                alone.at_pace(B, TOKENS, load * SHARE, end, draw()),
            )
            flooding.cancel()
            await shared.done()
            await alone.done()
            there, here, other = shared.seen(B), alone.seen(B), shared.seen(A)
    allowed = here.p99_wait + max(there.services + other.services)
    return {
        "p99_flooded_ms": there.p99_wait * 1e3,
        "p99_alone_ms": here.p99_wait * 1e3,
        "longest_service_ms": (allowed - here.p99_wait) * 1e3,
        "of_what_it_may_be": there.p99_wait / allowed,
        "b_refused": float(there.refused),
        "a_refused_share": other.refused / (other.refused + other.answered),
    }


async def weights(first: tuple[float, int], second: tuple[float, int], answers: int) -> dict[str, float]:
    """Two tenants, each (weight, tokens an answer), that always have something waiting, until each has so many answers."""
    with tempfile.TemporaryDirectory() as folder:
        async with slow_pool(Path(folder), places=4, token_s=0.0006, weights=(first[0], second[0])) as pool:
            stop = asyncio.Event()
            both = asyncio.gather(pool.always(A, first[1], 24, stop), pool.always(B, second[1], 24, stop))
            await until(lambda: pool.house.worker.gateway.pools.all()[0].waiting > 24)
            since = time.time()
            await until(lambda: min(pool.got[A, 200], pool.got[B, 200]) >= answers, 600.0)
            before = time.time()
            stop.set()
            await both
            await pool.done()
            mine = pool.served(A, since, before) / first[0]
            others = pool.served(B, since, before) / second[0]
    mean = (mine + others) / 2
    return {"a_over_mean": mean and mine / mean, "b_over_mean": mean and others / mean}


async def door() -> dict[str, float]:
    """Nanoseconds to enter and to leave a pool in which nobody waits; the fastest of many tries."""
    pool = Pool(name="p", replicas=(Replica(id="r", url="http://127.0.0.1:1"),), max_in_flight=1000)
    state = PoolState(pool, asyncio.get_running_loop(), Meters("bench"))
    tenant, usage = TenantEntry(name="acme"), Usage(300, 40)
    enters, leaves = [], []
    for _ in range(200):
        began = time.perf_counter_ns()
        places = [state.try_enter(tenant, 250) for _ in range(1000)]
        between = time.perf_counter_ns()
        for place in places:
            assert place is not None
            state.leave(place, 250, usage)
        ended = time.perf_counter_ns()
        enters.append(between - began)
        leaves.append(ended - between)
    return {
        "enter_ns": min(enters) / 1000,
        "leave_and_charge_ns": min(leaves) / 1000,
        "median_ns": statistics.median(map(sum, zip(enters, leaves, strict=True))) / 1000,
    }


async def everything(seconds: float) -> dict[str, dict[str, float]]:
    """All rows, by name."""
    found: dict[str, dict[str, float]] = {}
    for load, pace, flood in ((0.9, "even", 20.0), (0.7, "random", 20.0), (0.9, "even", 5.0), (0.5, "random", 40.0)):
        name = f"isolation: B at {load} of its share ({pace}), A at {flood:g} times"
        found[name] = await isolation(load, pace, flood, seconds)
    for first, second in (
        ((1.0, 20), (1.0, 20)),
        ((1.0, 40), (3.0, 20)),
        ((5.0, 10), (1.0, 80)),
        ((1.0, 80), (2.0, 5)),
    ):
        name = f"weights {first[0]:g} : {second[0]:g}, answers of {first[1]} and {second[1]} tokens"
        found[name] = await weights(first, second, int(15 * seconds))
    found["the door, nobody waits"] = await door()
    return found


def main() -> int:
    """Prints the figures, or JSON with `--json`; 1 if B waited longer than it may, or weights are off by more than 5 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each flood")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(everything(options.seconds))
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name, figures in found.items():
            print(name)
            for figure, value in figures.items():
                print(f"    {figure:20} {value:10.3f}")
    failed = [
        name
        for name, figures in found.items()
        if figures.get("of_what_it_may_be", 0.0) > 1.0 or abs(figures.get("a_over_mean", 1.0) - 1.0) > 0.025
    ]
    for name in failed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
