"""What callers have under way, and what was refused of it, as metrics."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Control
from penstock.core.metrics import metric
from penstock.store.schema import uploads


class BoundMeasures(Collector):
    """Tells what `read` found last, and what this process refused."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._pushes = 0
        self._bytes = 0

    async def read(self, connection: AsyncConnection, now: float) -> None:
        """Read what stands in the database."""
        open_ = (uploads.c.state == "open") & (uploads.c.lease_until > now)
        statement = select(func.count(), func.coalesce(func.sum(uploads.c.size), 0)).where(open_)
        count, size = (await connection.execute(statement)).one()
        self._pushes, self._bytes = int(count), int(size)

    def collect(self) -> Iterator[Metric]:
        """All three families."""
        for name, value in (("pushes_under_way", self._pushes), ("push_bytes_under_way", self._bytes)):
            entry = metric(f"penstock_{name}")
            yield GaugeMetricFamily(entry.name, entry.help, value=value)
        entry = metric("penstock_control_limited_total")
        counter = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        for bound, refused in (*self._control.bounds.refused.items(), ("logins", self._control.logins.refused)):
            counter.add_metric((bound,), refused)
        yield counter
