"""Builds as metrics: jobs by where they stand."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.metrics import metric
from penstock.store.schema_builds import build_jobs

STATES = ("queued", "running", "storing", "done", "failed", "cancelled")


class BuildMeasures(Collector):
    """Tells what `read` found last."""

    def __init__(self) -> None:
        self._jobs: dict[str, int] = {}

    async def read(self, connection: AsyncConnection) -> None:
        """Read what stands in the database."""
        states = select(build_jobs.c.state, func.count()).group_by(build_jobs.c.state)
        self._jobs = {row[0]: row[1] for row in await connection.execute(states)}

    def collect(self) -> Iterator[Metric]:
        """The family; every state has a series."""
        entry = metric("penstock_build_jobs")
        gauge = GaugeMetricFamily(entry.name, entry.help, labels=entry.labels)
        for state in STATES:
            gauge.add_metric((state,), self._jobs.get(state, 0))
        yield gauge
