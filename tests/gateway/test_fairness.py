"""Two tenants on a slow pool, over the real gateway: a flood by one leaves the other's waits as they were, and weights are kept."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.gateway.house import until
from tests.gateway.slow_pool import A, B, slow_pool

TOKENS = 20
TOKEN_S = 0.002  # 40 ms a request
SERVICE_S = TOKENS * TOKEN_S
PLACES = 2
SHARE = PLACES / SERVICE_S / 2  # requests a second, of each of the two
FOR_S = 3.0


@pytest.mark.parametrize("pace", ["even", "random"])
async def test_a_flood_at_twenty_times_its_share_leaves_the_others_p99_within_one_service_time(
    tmp_path: Path, pace: str
) -> None:
    """B asks at 9/10 of its share in even steps, or at 7/10 as a Poisson process.

    Alone it has a pool of its own share: half of the places. Where it asks in even steps that means no wait at all.
    """
    rate = SHARE * (0.9 if pace == "even" else 0.7)

    def draw() -> random.Random | None:
        return random.Random(3) if pace == "random" else None

    async with (
        slow_pool(tmp_path / "shared", places=PLACES, token_s=TOKEN_S) as shared,
        slow_pool(tmp_path / "alone", places=PLACES // 2, token_s=TOKEN_S) as alone,
    ):
        began = time.monotonic()
        flood = asyncio.create_task(shared.at_pace(A, TOKENS, 20 * SHARE, began + 60.0, None))
        await until(lambda: shared.got[A, 429] > 0)  # B comes when A has filled what it can of the queue
        end = time.monotonic() + FOR_S
        await asyncio.gather(shared.at_pace(B, TOKENS, rate, end, draw()), alone.at_pace(B, TOKENS, rate, end, draw()))
        flood.cancel()
        took = time.monotonic() - began
        await shared.done()
        await alone.done()
        there, here, other = shared.seen(B), alone.seen(B), shared.seen(A)
    longest = max(there.services + other.services)
    print(
        f"\nB's p99 queue time: {there.p99_wait * 1e3:.1f} ms under the flood, {here.p99_wait * 1e3:.1f} ms alone at its share; "
        f"longest service {longest * 1e3:.1f} ms; A asked {(other.answered + other.refused) / took / SHARE:.1f} times its share, "
        f"{other.refused} of {other.answered + other.refused} refused"
    )
    assert there.refused == here.refused == 0
    assert len(there.waits) > 0.5 * rate * FOR_S
    assert other.refused > 5 * other.answered, "it was a flood"
    assert there.p99_wait <= here.p99_wait + longest


async def test_served_tokens_follow_the_weights_within_five_percent(tmp_path: Path) -> None:
    async with slow_pool(tmp_path, places=4, token_s=0.0006, weights=(1.0, 3.0)) as pool:
        stop = asyncio.Event()
        state = pool.house.worker.gateway.pools.all()[0]
        both = asyncio.gather(pool.always(A, 40, 12, stop), pool.always(B, 20, 24, stop))
        await until(lambda: state.waiting > 24)
        since = time.time()
        await until(lambda: pool.got[A, 200] >= 160, 60.0)
        before = time.time()
        stop.set()
        await both
        await pool.done()
        first, second = pool.served(A, since, before), pool.served(B, since, before)
    print(
        f"\ncost served: {first:.0f} at weight 1, {second:.0f} at weight 3: {second / first / 3:.3f} of the weights' ratio"
    )
    assert second / first == pytest.approx(3.0, rel=0.05)
