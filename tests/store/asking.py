"""Asks a limiter as the gateway does: at once where it can be, else with the ledger."""

from penstock.access.leases import Holder, Reservation
from penstock.core.snapshot import KeyEntry, TenantEntry
from penstock.store.limiter import Limiter


async def count(limiter: Limiter, key: KeyEntry, tenant: TenantEntry, now: float) -> Holder:
    holder = limiter.holder(key, tenant)
    if not limiter.try_count(holder, now):
        await limiter.count(holder, now)
    return holder


async def reserve(
    limiter: Limiter, key: KeyEntry, tenant: TenantEntry, tokens: int, now: float, nanousd: int = 0
) -> Reservation:
    holder = limiter.holder(key, tenant)
    return limiter.try_reserve(holder, tokens, now, nanousd) or await limiter.reserve(holder, tokens, now, nanousd)
