"""Canaries as metrics: their share, the evidence against them, when their share ends, and how they ended."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.metrics import metric
from penstock.store.schema import revisions
from penstock.store.schema_delivery import canaries
from penstock.store.schema_experiments import experiments

ENDS = ("promoted", "rolled_back", "aborted")


class CanaryMeasures(Collector):
    """Tells what `read` found last."""

    def __init__(self) -> None:
        self._shares: list[tuple[tuple[str, str], float]] = []
        self._expires: list[tuple[tuple[str, str], float]] = []
        self._evidence: list[tuple[tuple[str, str, str], float]] = []
        self._ended: dict[tuple[str, str], int] = {}

    async def read(self, connection: AsyncConnection) -> None:
        """Read what stands in the database."""
        running = await connection.execute(
            select(
                canaries.c.model,
                revisions.c.label,
                experiments.c.ranges,
                experiments.c.expires_at,
                experiments.c.verdict,
            )
            .join(revisions, revisions.c.id == canaries.c.revision)
            .join(experiments, experiments.c.name == canaries.c.experiment)
            .where(canaries.c.state == "running", experiments.c.state == "running")
        )
        self._shares, self._expires, self._evidence = [], [], []
        for row in running:
            labels = (row.model, f"{row.model}:{row.label}")
            self._shares.append((labels, sum(high - low for low, high in row.ranges.get("canary", ()))))
            self._expires.append((labels, row.expires_at or 0.0))
            for gauge in (row.verdict or {}).get("guardrails", ()):
                self._evidence.append(((*labels, gauge["metric"]), gauge["gauge"]))
        ended = select(canaries.c.model, canaries.c.state, func.count().label("count")).where(
            canaries.c.state.in_(ENDS)
        )
        found = await connection.execute(ended.group_by(canaries.c.model, canaries.c.state))
        self._ended = {(row.model, row.state): row._mapping["count"] for row in found}  # noqa: SLF001 - public, by its documentation

    def collect(self) -> Iterator[Metric]:
        """All families; a model that had a canary has a series for each way in which one ends."""
        for name, rows in (
            ("penstock_canary_share", self._shares),
            ("penstock_canary_expires_timestamp_seconds", self._expires),
            ("penstock_canary_evidence_ratio", self._evidence),
        ):
            entry = metric(name)
            gauges = GaugeMetricFamily(name, entry.help, labels=entry.labels)
            for labels, value in rows:
                gauges.add_metric(labels, value)
            yield gauges
        entry = metric("penstock_canaries_ended_total")
        counter = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        known = {model for model, _ in self._ended} | {labels[0] for labels, _ in self._shares}
        for model in sorted(known):
            for state in ENDS:
                counter.add_metric((model, state), self._ended.get((model, state), 0))
        yield counter
