"""Figures out of `usage_minute`: by what one asks for, over a stretch of time."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.evaluators.entry import EVALUATORS
from penstock.control.ingest.usage import COUNTS
from penstock.core.errors import BadRequest
from penstock.experiments.statistics import quantile
from penstock.store.schema_experiments import usage_minute

MINUTES = {"minute": 1, "hour": 60, "day": 1440}
BY = (*MINUTES, "tenant", "route", "version", "arm")
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Figures:
    """Counts and histograms that add up."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.latency: dict[int, int] = {}
        self.first_token: dict[int, int] = {}

    def add(self, row: Any) -> None:
        """Add one row of `usage_minute`."""
        for name in COUNTS:
            self.counts[name] += row[name]
        for mine, theirs in ((self.latency, row["latency"]), (self.first_token, row["first_token"])):
            for bucket, count in theirs.items():
                key = int(bucket)
                mine[key] = mine.get(key, 0) + count

    def told(self) -> dict[str, Any]:
        """As the API tells them: dollars, seconds, quantiles (None where there is nothing)."""
        counts = dict(self.counts)
        cost = counts.pop("cost_nanousd")
        return counts | {
            "cost_usd": cost / 1e9,
            "latency_s": _seconds(self.latency),
            "first_token_s": _seconds(self.first_token),
        }


def _seconds(histogram: dict[int, int]) -> dict[str, float | None]:
    found = {name: quantile(histogram, p) for name, p in _QUANTILES.items()}
    return {name: None if value is None else value / 1e9 for name, value in found.items()}


def check_by(by: str, allowed: Sequence[str] = BY) -> list[str]:
    """What to group by, from a comma-separated list.

    Raises:
        BadRequest: if it names what cannot be grouped by, or two lengths of time.
    """
    names = [name.strip() for name in by.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise BadRequest(f"{name!r} is nothing to group by: use {', '.join(allowed)}.", param="by")
    if sum(name in MINUTES for name in names) > 1:
        raise BadRequest("Group by one of minute, hour and day.", param="by")
    return names


async def usage_rows(
    connection: AsyncConnection, start: float, end: float, filters: dict[str, str | None] | None = None
) -> Iterable[Any]:
    """The rows of the minutes from `start` to `end` (Unix seconds), oldest first."""
    statement = (
        select(usage_minute)
        .where(usage_minute.c.minute >= int(start // 60), usage_minute.c.minute <= int(end // 60))
        .order_by(usage_minute.c.minute)
    )
    for name, value in (filters or {}).items():
        if value is not None:
            statement = statement.where(usage_minute.c[name] == value)
    return (await connection.execute(statement)).mappings().all()


def as_traffic(rows: Iterable[Any]) -> list[Any]:
    """The rows as a picture of users' traffic: what evaluators asked costs, but nobody waited for it."""
    silent: dict[str, Any] = dict.fromkeys(("requests", "errors", "refused", "cancelled", "cached"), 0) | {
        "latency": {},
        "first_token": {},
    }
    return [dict(row) | silent if row["tenant"] == EVALUATORS else row for row in rows]


def grouped(rows: Iterable[Any], by: Sequence[str]) -> list[dict[str, Any]]:
    """Figures by the values of `by`, in the order of these."""
    groups: dict[tuple[Any, ...], Figures] = {}
    for row in rows:
        key = tuple(
            row["minute"] // MINUTES[name] * MINUTES[name] * 60 if name in MINUTES else row[name] for name in by
        )
        groups.setdefault(key, Figures()).add(row)
    names = ["at" if name in MINUTES else name for name in by]
    return [dict(zip(names, key, strict=True)) | groups[key].told() for key in sorted(groups)]
