"""Gates as metrics: evaluations by where they stand, and promotions by whether gates were passed or overridden."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.metrics import metric
from penstock.store.schema import revisions
from penstock.store.schema_gates import evaluations, judgements

STATES = ("queued", "running", "done", "failed", "cancelled")


class GateMeasures(Collector):
    """Tells what `read` found last."""

    def __init__(self) -> None:
        self._evaluations: dict[str, int] = {}
        self._judged: dict[tuple[str, str], int] = {}

    async def read(self, connection: AsyncConnection) -> None:
        """Read what stands in the database."""
        states = select(evaluations.c.state, func.count()).group_by(evaluations.c.state)
        self._evaluations = {row[0]: row[1] for row in await connection.execute(states)}
        overridden = (judgements.c.overridden_by != "").label("overridden")
        judged = select(revisions.c.environment, overridden, func.count()).join(
            judgements, judgements.c.revision == revisions.c.id
        )
        found = await connection.execute(judged.group_by(revisions.c.environment, overridden))
        self._judged = {(row[0], "overridden" if row[1] else "passed"): row[2] for row in found}

    def collect(self) -> Iterator[Metric]:
        """Both families; an environment that has let something in has a series for each way."""
        entry = metric("penstock_evaluations")
        gauge = GaugeMetricFamily(entry.name, entry.help, labels=entry.labels)
        for state in STATES:
            gauge.add_metric((state,), self._evaluations.get(state, 0))
        yield gauge
        entry = metric("penstock_gates_judged_total")
        counter = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        for environment in sorted({name for name, _ in self._judged}):
            for result in ("passed", "overridden"):
                counter.add_metric((environment, result), self._judged.get((environment, result), 0))
        yield counter
