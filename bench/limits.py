"""What the limits cost a request: count, reserve, settle and the `x-ratelimit-*` fields, key and tenant limited in three ways each."""

import asyncio
import time

from penstock.core.snapshot import KeyEntry, Limits, TenantEntry
from penstock.gateway.ratelimit import limit_lines
from penstock.store.ledger import LocalLedger
from penstock.store.limiter import Limiter

_LIMITS = Limits(requests_per_minute=10**9, tokens_per_minute=10**12, concurrency=10**6)


async def limits_us(*, requests: int = 200_000, rounds: int = 3) -> dict[str, float]:
    """CPU microseconds a request of each part and of all, the least of `rounds`, less an empty loop's."""
    key = KeyEntry(id="key_bench", hash="", tenant="bench", limits=_LIMITS)
    tenant = TenantEntry(name="bench", limits=_LIMITS)
    limiter = Limiter(LocalLedger())
    holder = limiter.holder(key, tenant)
    clock = time.monotonic
    parts = dict.fromkeys(("count", "reserve and settle", "fields", "all"), float("inf"))

    async def count() -> None:
        if not limiter.try_count(holder, clock()):
            await limiter.count(holder, clock())

    async def hold() -> None:
        now = clock()
        reservation = limiter.try_reserve(holder, 300, now) or await limiter.reserve(holder, 300, now)
        limiter.settle(reservation, 120, clock())

    await count()
    await hold()
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(requests):
            clock()
        empty = time.process_time() - began
        began = time.process_time()
        for _ in range(requests):
            if not limiter.try_count(holder, clock()):
                await count()
        counted = time.process_time() - began - empty
        began = time.process_time()
        for _ in range(requests):
            reservation = limiter.try_reserve(holder, 300, clock())
            if reservation is None:
                await hold()
            else:
                limiter.settle(reservation, 120, clock())
        held = time.process_time() - began - empty
        began = time.process_time()
        for _ in range(requests):
            limit_lines(holder, clock())
        told = time.process_time() - began - empty
        measured = {"count": counted, "reserve and settle": held, "fields": told, "all": counted + held + told}
        parts = {name: min(parts[name], seconds * 1e6 / requests) for name, seconds in measured.items()}
    return parts


if __name__ == "__main__":
    for name, microseconds in asyncio.run(limits_us()).items():
        print(f"{name:20} {microseconds:6.2f} us")
