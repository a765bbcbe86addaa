"""What the requests of one worker share: the Snapshot in use, pools, cache, limits, journal, metrics."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator

from penstock.core.errors import PenstockError
from penstock.core.snapshot import Snapshot
from penstock.gateway.cache import Cache
from penstock.gateway.identity import IdMaker
from penstock.gateway.index import Index
from penstock.gateway.metrics import Meters
from penstock.gateway.pools import Pools
from penstock.gateway.ports import Journal, Limiter
from penstock.gateway.standing import Standing
from penstock.gateway.trace import next_parent
from penstock.net.client import Client
from penstock.wire.envelope import Envelope


class Gateway:
    """One worker's shared state. It has one owner, the event loop's thread.

    Attributes:
        index: the Snapshot in use; a request keeps the one it began with.
        refused: why the last Snapshot was refused, or "".
    """

    def __init__(
        self,
        *,
        worker: str,
        snapshot: Snapshot,
        journal: Journal,
        limiter: Limiter,
        client: Client,
        subject_key: bytes,
        cache_bytes: int,
    ) -> None:
        self.worker = worker
        self.journal = journal
        self.limiter = limiter
        self.client = client
        self.subject_key = subject_key
        self.cache = Cache(cache_bytes)
        self.meters = Meters(worker)
        self.pools = Pools(self.meters)
        self.refused = ""
        self.no_envelope = Envelope(model="")
        self.draw = random.random
        self.new_id = IdMaker("req").make
        self._loop = asyncio.get_running_loop()
        self.index = Index(snapshot)
        self.pools.update(self.index, self._loop)
        self._register()

    def take(self, snapshot: Snapshot) -> bool:
        """Swaps in `snapshot` whole; False, with the reason in `refused`, if it contradicts itself: then nothing changes."""
        try:
            self.swap(Index(snapshot, self.index))
        except (ValueError, PenstockError) as error:
            self.refuse(snapshot.generation, error)
            return False
        return True

    def swap(self, index: Index) -> None:
        """From the next request on, `index` decides."""
        self.refused = ""
        self.index = index
        self.pools.update(index, self._loop)

    def refuse(self, generation: int, error: Exception) -> None:
        """Keeps the Snapshot in use, because `error` is wrong with a newer one."""
        self.refused = f"generation {generation}: {error}"
        self.meters.error("snapshot_refused")

    def next_trace(self, received: bytes | None) -> str:
        """The `traceparent` to send on with a new span, or ""."""
        return next_parent(received, os.urandom(8)) if received is not None else ""

    def _register(self) -> None:
        meters = self.meters
        meters.gauge("penstock_requests_in_flight", lambda: iter([((), float(meters.in_flight))]))
        meters.gauge("penstock_snapshot_generation", lambda: iter([((), float(self.index.generation))]))
        meters.gauge("penstock_queue_waiting", self._waiting)
        Standing(self.pools).register(meters)
        counts = self.journal.counts
        meters.gauge("penstock_journal_bytes_total", lambda: iter([((), float(counts.bytes))]))
        meters.gauge("penstock_journal_failures_total", lambda: iter([((), float(counts.failures))]))
        meters.gauge("penstock_journal_lost_records_total", lambda: iter([((), float(counts.lost))]))

    def _waiting(self) -> Iterator[tuple[tuple[str, ...], float]]:
        for state in self.pools.all():
            for priority, waiting in state.waiting_by_priority():
                yield (state.pool.name, priority), float(waiting)
