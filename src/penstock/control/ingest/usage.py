"""Usage by minute: folded in memory over a batch, then added to the rows in one go."""

from typing import Any

import msgspec
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.exchange import FROM_CACHE, Exchange
from penstock.experiments.metrics import FAILURES, latency_ns
from penstock.experiments.statistics import bucket_of
from penstock.store.schema_experiments import usage_minute

UsageKey = tuple[int, str, str, str, str]  # minute, tenant, route, version, arm
EXPERIMENTS = "(experiments)"  # whom second answers are booked under: no tenant can be called so
KEYS = ("minute", "tenant", "route", "version", "arm")
COUNTS = (
    "requests",
    "errors",
    "refused",
    "cancelled",
    "cached",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost_nanousd",
)


class UsageRow(msgspec.Struct, kw_only=True):
    """What was used under one key."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    cancelled: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_nanousd: int = 0
    latency: dict[int, int] = {}
    first_token: dict[int, int] = {}

    def add(self, exchange: Exchange) -> None:
        """Count one exchange."""
        self.requests += 1
        self.errors += exchange.outcome in FAILURES
        self.refused += exchange.outcome == "refused"
        self.cancelled += exchange.outcome == "cancelled"
        self.cached += exchange.cache in FROM_CACHE
        self.prompt_tokens += max(0, exchange.usage.prompt)
        self.completion_tokens += max(0, exchange.usage.completion)
        self.cached_tokens += max(0, exchange.usage.cached)
        self.cost_nanousd += max(0, exchange.cost_nanousd)
        if exchange.outcome != "refused":
            bucket = bucket_of(latency_ns(exchange))
            self.latency[bucket] = self.latency.get(bucket, 0) + 1
            if exchange.stream and exchange.phases.first_token > 0:
                bucket = bucket_of(exchange.phases.first_token)
                self.first_token[bucket] = self.first_token.get(bucket, 0) + 1


class UsageBatch:
    """Usage of one batch of records."""

    def __init__(self) -> None:
        self._rows: dict[UsageKey, UsageRow] = {}

    def add(self, exchange: Exchange) -> None:
        """Count one exchange under its minute, tenant, route, version and arm."""
        if exchange.pair is not None:
            self._second(exchange)
            if exchange.pair.of:
                return
        arm = f"{exchange.experiment}/{exchange.arm}" if exchange.experiment else ""
        key = (int(exchange.at // 60), exchange.tenant, exchange.route, exchange.version, arm)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = UsageRow(latency={}, first_token={})
        row.add(exchange)

    def _second(self, exchange: Exchange) -> None:
        """Book what a second answer used under a tenant of its own: nobody asked for it. Its requests and errors are none of users'."""
        pair = exchange.pair
        if pair is None:
            return
        own = bool(pair.of)
        usage, cost = (exchange.usage, exchange.cost_nanousd) if own else (pair.usage, pair.cost_nanousd)
        arm = f"{exchange.experiment}/{exchange.arm if own else pair.arm}"
        key = (int(exchange.at // 60), EXPERIMENTS, exchange.route, exchange.version if own else "", arm)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = UsageRow(latency={}, first_token={})
        row.prompt_tokens += max(0, usage.prompt)
        row.completion_tokens += max(0, usage.completion)
        row.cached_tokens += max(0, usage.cached)
        row.cost_nanousd += max(0, cost)

    async def save(self, connection: AsyncConnection) -> None:
        """Add the batch to the table."""
        if not self._rows:
            return
        known: list[dict[str, Any]] = []
        minutes = sorted({key[0] for key in self._rows})
        for start in range(0, len(minutes), 500):
            found = await connection.execute(
                select(usage_minute).where(usage_minute.c.minute.in_(minutes[start : start + 500]))
            )
            for old in found.mappings():
                key: UsageKey = (old["minute"], old["tenant"], old["route"], old["version"], old["arm"])
                row = self._rows.pop(key, None)
                if row is not None:
                    known.append({f"p_{name}": old[name] for name in KEYS} | _added(row, old))
        if known:
            await connection.execute(
                update(usage_minute)
                .where(*(usage_minute.c[name] == bindparam(f"p_{name}") for name in KEYS))
                .values({name: bindparam(f"v_{name}") for name in (*COUNTS, "latency", "first_token")}),
                known,
            )
        if self._rows:
            await connection.execute(
                insert(usage_minute),
                [dict(zip(KEYS, key, strict=True)) | msgspec.structs.asdict(row) for key, row in self._rows.items()],
            )


def _added(row: UsageRow, old: Any) -> dict[str, Any]:
    values: dict[str, Any] = {f"v_{name}": old[name] + getattr(row, name) for name in COUNTS}
    for name in ("latency", "first_token"):
        counts = {int(bucket): count for bucket, count in old[name].items()}
        for bucket, count in getattr(row, name).items():
            counts[bucket] = counts.get(bucket, 0) + count
        values[f"v_{name}"] = counts
    return values
