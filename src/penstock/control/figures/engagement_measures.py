"""Sessions, engagement and conversions as counters: read out of the table, so that no restart changes them."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.ingest.engagement import COUNTS, EVER
from penstock.core.metrics import metric
from penstock.store.schema_engagement import engagement_minute

_MOST = 1000  # series of one name; what came to be later is told together
REST = "(others)"  # the label of these
_NAMES = {
    "penstock_sessions_total": "sessions",
    "penstock_engaged_sessions_total": "engaged",
    "penstock_session_requests_total": "session_requests",
    "penstock_session_seconds_total": "session_ms",
    "penstock_events_total": "events",
    "penstock_conversions_total": "conversions",
    "penstock_feedback_total": "feedback",
    "penstock_reports_total": "reports",
}


class EngagementMeasures(Collector):
    """Tells what `read` found last."""

    def __init__(self) -> None:
        self._rows: list[tuple[tuple[str, str, str], dict[str, int]]] = []

    async def read(self, connection: AsyncConnection) -> None:
        """Reads the totals since ever, the oldest series first."""
        table = engagement_minute
        order = (table.c.sequence, table.c.tenant, table.c.route, table.c.version)
        found = await connection.execute(select(table).where(table.c.minute == EVER).order_by(*order))
        self._rows = bounded(found.mappings())

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for name, field in _NAMES.items():
            entry = metric(name)
            family = CounterMetricFamily(name, entry.help, labels=entry.labels)
            for labels, counts in self._rows:
                family.add_metric(labels, counts[field] / 1000 if field == "session_ms" else counts[field])
            yield family


def bounded(rows: Any, most: int = _MOST) -> list[tuple[tuple[str, str, str], dict[str, int]]]:
    """The first `most` of `rows` with their labels, and the sum of the rest as one more."""
    told: list[tuple[tuple[str, str, str], dict[str, int]]] = []
    rest = dict.fromkeys(COUNTS, 0)
    late = False
    for row in rows:
        counts = {name: row[name] for name in COUNTS}
        if len(told) < most:
            told.append(((row["tenant"], row["route"], row["version"]), counts))
            continue
        late = True
        for name in COUNTS:
            rest[name] += counts[name]
    return [*told, ((REST, REST, REST), rest)] if late else told
