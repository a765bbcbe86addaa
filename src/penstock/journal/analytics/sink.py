"""The journal's reader that writes the analytical store, and the loop that keeps the store in order."""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from penstock.core.errors import PenstockError
from penstock.core.exchange import Opened
from penstock.core.metrics import metric
from penstock.journal.analytics.store import AnalyticsStore
from penstock.journal.analytics.tables import Row
from penstock.journal.analytics.upkeep import Retention, plan_upkeep
from penstock.journal.format import Position
from penstock.journal.reader import Batch
from penstock.journal.refusals import Tally
from penstock.journal.ship import OutOfPlace

_log = logging.getLogger("penstock.ship")


class ParquetSink(Collector):
    """Batches become files of the store. Files are written in a thread, one thing at a time; the event loop goes on."""

    def __init__(self, folder: Path, *, clock: Callable[[], float], disk_bytes: int) -> None:
        """The store is opened at the first look: what is wrong with it stops this reader alone."""
        self.tally = Tally()
        self._folder = folder
        self._store: AnalyticsStore | None = None
        self._clock = clock
        self._disk_bytes = disk_bytes
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """`parquet`."""
        return "parquet"

    @property
    def store(self) -> AnalyticsStore:
        """The store, opened if it is not.

        Raises:
            PenstockError: if it cannot be.
        """
        if self._store is None:
            self._store = AnalyticsStore(self._folder)
        return self._store

    async def positions(self) -> dict[str, Position] | None:
        """What the store's log has.

        Raises:
            PenstockError: if the store cannot be opened.
        """
        return dict(self.store.state.positions)

    async def send(self, worker: str, batch: Batch) -> None:
        """Write it.

        Raises:
            OutOfPlace: if it is not what comes next.
            OSError: if the disk refuses.
        """
        async with self._turn:
            start = Position(batch.segment, batch.start)
            committed = self.store.state.positions.get(worker)
            if committed is not None and start != committed and start.segment <= committed.segment:
                raise OutOfPlace(committed)
            await asyncio.to_thread(self._add, worker, batch)

    async def close(self) -> None:
        """Let go of the store, when what is being written is."""
        async with self._turn:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _add(self, worker: str, batch: Batch) -> None:
        start = Position(batch.segment, batch.start)
        rows = [Row(worker, place, record) for place, record in batch.records() if not isinstance(record, Opened)]
        self.store.add(worker, start, batch.end, rows, self._clock())

    async def keep(self, ask: Callable[[], Awaitable[Retention]], every_s: float) -> None:
        """Keep the store in order, until cancelled. While nobody says how long things are kept, they are kept."""
        retention = Retention()
        while True:
            await asyncio.sleep(every_s)
            try:
                retention = await ask()
            except PenstockError as error:
                _log.warning("parquet: how long exchanges are kept is not known: %s", error)
            try:
                await self.upkeep(retention)
            except (PenstockError, OSError) as error:
                _log.warning("parquet: %s", error)

    async def upkeep(self, retention: Retention) -> None:
        """One round: remove what is too old or too much, merge what is small.

        Raises:
            PenstockError: if the store cannot be opened.
            OSError: if the disk refuses; what was done before it stays done.
        """
        now = self._clock()
        today = dt.datetime.fromtimestamp(now, dt.UTC).date().isoformat()
        store = self.store
        plan = plan_upkeep(store.state.files.values(), today, retention, self._disk_bytes)
        for files, reason in ((plan.expired, "retention"), (plan.beyond, "bound")):
            if files:
                async with self._turn:
                    await asyncio.to_thread(store.remove, files, now)
                rows = sum(file.rows for file in files)
                setattr(store.removed, reason, getattr(store.removed, reason) + rows)
                _log.info("parquet: %d rows of %s to %s go: %s", rows, files[0].day, files[-1].day, reason)
        for group in plan.merge:
            async with self._turn:
                await asyncio.to_thread(store.merge, group, now)
        async with self._turn:
            await asyncio.to_thread(store.tidy, now)

    def collect(self) -> Iterator[Family]:
        """For prometheus-client."""
        if self._store is None:
            return
        state, removed = self.store.state, self.store.removed
        for name, value in (
            ("penstock_analytics_bytes", self.store.bytes()),
            ("penstock_analytics_files", len(state.files)),
        ):
            yield GaugeMetricFamily(name, metric(name).help, value=value)
        entry = metric("penstock_analytics_removed_rows_total")
        family = CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
        for reason in removed.__slots__:
            family.add_metric((reason,), getattr(removed, reason))
        yield family
