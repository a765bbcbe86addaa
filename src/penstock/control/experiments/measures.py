"""Experiments as metrics: how they ended, and which of them say nothing because their split is broken."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import SYSTEM
from penstock.core.metrics import metric
from penstock.store.schema_experiments import experiments

ENDS = ("better", "worse", "harm", "no_difference", "inconclusive", "by_hand")


class ExperimentMeasures(Collector):
    """Tells what `read` found last: it stands in the database, so no restart changes it."""

    def __init__(self) -> None:
        self._ended: Counter[tuple[str, str]] = Counter()
        self._routes: set[str] = set()
        self._blocked: dict[tuple[str, str], bool] = {}
        self._doses: dict[tuple[str, str], float] = {}

    async def read(self, connection: AsyncConnection) -> None:
        """Read it."""
        rows = (
            await connection.execute(
                select(
                    experiments.c.name,
                    experiments.c.route,
                    experiments.c.state,
                    experiments.c.verdict,
                    experiments.c.decision,
                    experiments.c.dose,
                ).where(experiments.c.state != "draft")
            )
        ).all()
        self._routes = {row.route for row in rows}
        self._ended = Counter(
            (row.route, end_of(row.decision, row.verdict)) for row in rows if row.decision is not None
        )
        running = [row for row in rows if row.state == "running"]
        self._blocked = {(row.name, row.route): (row.verdict or {}).get("state") == "blocked" for row in running}
        self._doses = {(row.name, row.route): row.dose for row in running if row.dose is not None}

    def collect(self) -> Iterator[Metric]:
        """All families; a route that had an experiment has a series for each way in which one ends."""
        entry = metric("penstock_experiments_ended_total")
        counter = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        for route in sorted(self._routes):
            for end in ENDS:
                counter.add_metric((route, end), self._ended[route, end])
        yield counter
        for name, values in (
            ("penstock_experiment_blocked", self._blocked),
            ("penstock_experiment_dose_ratio", self._doses),
        ):
            entry = metric(name)
            gauge = GaugeMetricFamily(name, entry.help, labels=entry.labels)
            for labels, value in values.items():
                gauge.add_metric(labels, float(value))
            yield gauge


def end_of(decision: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> str:
    """How an experiment ended: `harm` where a guardrail tripped, `by_hand` where somebody ended it."""
    if decision["by"] != SYSTEM.name:
        return "by_hand"
    verdict = verdict or {}
    if verdict.get("tripped"):
        return "harm"
    state = verdict.get("state", "")
    return state if state in ENDS else "by_hand"
