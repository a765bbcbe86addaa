"""Webhooks and pipelines as metrics, by what stands in the database."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.metrics import metric
from penstock.store.schema_pipelines import outbox, pipelines, webhook_counts, webhook_deliveries

ENDS = ("done", "refused", "failed", "cancelled")


class WebhookMeasures(Collector):
    """Tells what `read` found last."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._standing: dict[tuple[str, str], int] = {}
        self._ages: dict[str, float] = {}
        self._pipelines: dict[str, int] = {}

    async def read(self, connection: AsyncConnection, now: float) -> None:
        """Read what stands in the database."""
        counts = await connection.execute(select(webhook_counts))
        self._counts = {
            row.webhook: {"delivered": row.delivered, "failed": row.failed, "dead": row.died} for row in counts
        }
        states = select(webhook_deliveries.c.webhook, webhook_deliveries.c.state, func.count()).group_by(
            webhook_deliveries.c.webhook, webhook_deliveries.c.state
        )
        self._standing = {(row[0], row[1]): row[2] for row in await connection.execute(states)}
        eldest = (
            select(webhook_deliveries.c.webhook, func.min(outbox.c.at))
            .join(outbox, outbox.c.sequence == webhook_deliveries.c.sequence)
            .where(webhook_deliveries.c.state == "waiting")
            .group_by(webhook_deliveries.c.webhook)
        )
        self._ages = {row[0]: max(0.0, now - row[1]) for row in await connection.execute(eldest)}
        ended = await connection.execute(select(pipelines.c.state, func.count()).group_by(pipelines.c.state))
        self._pipelines = {row[0]: row[1] for row in ended}

    def collect(self) -> Iterator[Metric]:
        """All families; each webhook has all of its series from its making on."""
        entry = metric("penstock_webhook_attempts_total")
        counter = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        for webhook, counts in self._counts.items():
            for result in ("delivered", "failed", "dead"):
                counter.add_metric((webhook, result), counts[result])
        yield counter
        for name, state in (("penstock_webhook_waiting", "waiting"), ("penstock_webhook_dead_letters", "dead")):
            entry = metric(name)
            gauge = GaugeMetricFamily(name, entry.help, labels=entry.labels)
            for webhook in self._counts:
                gauge.add_metric((webhook,), self._standing.get((webhook, state), 0))
            yield gauge
        entry = metric("penstock_webhook_behind_seconds")
        gauge = GaugeMetricFamily(entry.name, entry.help, labels=entry.labels)
        for webhook in self._counts:
            gauge.add_metric((webhook,), self._ages.get(webhook, 0.0))
        yield gauge
        entry = metric("penstock_pipelines_running")
        running = GaugeMetricFamily(entry.name, entry.help)
        running.add_metric((), self._pipelines.get("running", 0))
        yield running
        entry = metric("penstock_pipelines_ended_total")
        counter = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        for state in ENDS:
            counter.add_metric((state,), self._pipelines.get(state, 0))
        yield counter
