"""Evaluators as metrics: what became of the answers that they drew, how far they are behind, their calls and what those cost."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.evaluators.store import UNUSED, behind_of, counts_of, used_by
from penstock.core.metrics import metric
from penstock.store.schema import resources


class EvaluatorMeasures(Collector):
    """Tells what `read` found last: it stands in the database, so no restart changes it."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], int] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._behind: dict[str, float] = {}
        self._cost: dict[str, float] = {}

    async def read(self, connection: AsyncConnection, now: float) -> None:
        """Read it at `now` (Unix seconds)."""
        declared = select(resources.c.name).where(resources.c.kind == "Evaluator").order_by(resources.c.name)
        names = list((await connection.execute(declared)).scalars())
        self._results, self._calls, self._behind, self._cost = {}, {}, {}, {}
        if not names:
            return
        counts, used = await counts_of(connection), await used_by(connection, names)
        for name in names:
            total: Counter[str] = Counter()
            for results in counts.get(name, {}).values():
                total.update(results)
            # What waits for its pair becomes fewer again: no counter does.
            self._results |= {(name, result): count for result, count in total.items() if result != "unpaired"}
            self._behind[name] = await behind_of(connection, name, now)
            mine = used.get(name, UNUSED)
            failed = {"error": mine["errors"], "refused": mine["refused"]}
            for result, count in {"ok": mine["calls"] - sum(failed.values()), **failed}.items():
                self._calls[name, result] = count
            self._cost[name] = mine["cost_usd"]

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for full, rows in (
            ("penstock_evaluator_results_total", self._results),
            ("penstock_evaluator_calls_total", self._calls),
        ):
            entry = metric(full)
            counter = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
            for labels, count in rows.items():
                counter.add_metric(labels, count)
            yield counter
        entry = metric("penstock_evaluator_cost_usd_total")
        cost = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        for name, value in self._cost.items():
            cost.add_metric((name,), value)
        yield cost
        entry = metric("penstock_evaluator_behind_seconds")
        gauge = GaugeMetricFamily(entry.name, entry.help, labels=entry.labels)
        for name, value in self._behind.items():
            gauge.add_metric((name,), value)
        yield gauge
