"""What the requests of one worker share: the Snapshot in use, pools, cache, limits, journal, metrics."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock.core.reports import FAULT_KINDS
from penstock.core.snapshot import Snapshot
from penstock.gateway.cache import Cache
from penstock.gateway.identity import IdMaker
from penstock.gateway.index import UNUSABLE, Index
from penstock.gateway.metrics import Meters
from penstock.gateway.pins import Pins
from penstock.gateway.pools import Pools
from penstock.gateway.ports import Journal, Limiter, SharedCache, Vault
from penstock.gateway.recorder import Recorder
from penstock.gateway.shadow import Shadows
from penstock.gateway.shelves import Shelves
from penstock.gateway.standing import Standing
from penstock.journal.subjects import hash_subject
from penstock.net.client import Client
from penstock.wire.envelope import Envelope

if TYPE_CHECKING:
    from penstock.gateway.coalesce import Flight

_MOST_SUBJECTS = 8192

_QUESTION_BYTES = 8192  # of the memory for answers, for each question that is kept by its meaning


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
        notice_per_s: float = 0.0,
        shared: SharedCache | None = None,
        vault: Vault | None = None,
        pins: Pins | None = None,
    ) -> None:
        self.worker = worker
        self.journal = journal
        self.limiter = limiter
        self.client = client
        self.subject_key = subject_key
        self.salts: dict[str, bytes] = {}  # by tenant
        self.notice_gap = 1.0 / notice_per_s if notice_per_s else math.inf
        self.notice_at = 0.0 if notice_per_s else math.inf  # the next request from then on is looked at for drift
        self.cache = Cache(cache_bytes)
        self.flights: dict[bytes, Flight] = {}  # answers in the making that others may share
        self.shelves = Shelves(max(64, cache_bytes // _QUESTION_BYTES))
        self.shared = shared
        self.vault = vault  # None: no content can be kept
        self.pins = pins or Pins()  # what keeps its arm when shares change
        self.meters = Meters(worker)
        self.pools = Pools(self.meters)
        self.shadows = Shadows(self.meters)
        self.recorder = Recorder(journal, self.meters, asyncio.get_running_loop())
        self.refused = ""
        self._subjects: dict[str, str] = {}
        self.no_envelope = Envelope(model="")
        self.draw = random.random
        self.new_id = IdMaker("req").make
        self._loop = asyncio.get_running_loop()
        self.index = Index(snapshot)
        self.pools.update(self.index, self._loop)
        self._register()

    def subject(self, name: str) -> str:
        """The keyed hash of a user's or a session's name; those of the last ones are kept, since the same ask again."""
        found = self._subjects.get(name)
        if found is None:
            if len(self._subjects) >= _MOST_SUBJECTS:
                self._subjects.clear()
            found = self._subjects[name] = hash_subject(self.subject_key, name)
        return found

    def take(self, snapshot: Snapshot) -> bool:
        """Swaps in `snapshot` whole; False, with the reason in `refused`, if it is none: then nothing changes."""
        try:
            self.swap(Index(snapshot, self.index))
        except UNUSABLE as error:
            self.refuse(snapshot.generation, error)
            return False
        return True

    def swap(self, index: Index) -> None:
        """From the next request on, `index` decides."""
        self.pools.update(index, self._loop)
        self.index = index
        self.refused = ""
        self.salts.clear()  # those of tenants that have gone

    def refuse(self, generation: int, error: Exception) -> None:
        """Keeps the Snapshot in use, because `error` is wrong with a newer one; generation 0: it could not be read so far."""
        self.refused = f"generation {generation}: {error}" if generation else str(error)
        self.meters.error("snapshot_refused")

    def _register(self) -> None:
        meters = self.meters
        meters.gauge("penstock_requests_in_flight", lambda: iter([((), float(meters.in_flight))]))
        meters.gauge("penstock_snapshot_generation", lambda: iter([((), float(self.index.generation))]))
        meters.gauge("penstock_ledger_up", lambda: iter([((), float(self.limiter.up))]))
        meters.gauge("penstock_snapshot_faults", self._faults)
        meters.gauge("penstock_queue_waiting", self._waiting)
        Standing(self.pools).register(meters)
        counts = self.journal.counts
        meters.gauge("penstock_journal_bytes_total", lambda: iter([((), float(counts.bytes))]))
        shared = self.shared
        if shared is not None:
            meters.gauge("penstock_shared_cache_failures_total", lambda: iter([((), float(shared.failures))]))
        pins = self.pins
        meters.gauge("penstock_sticky_given_up_total", lambda: iter([((), float(pins.given_up))]))
        vault = self.vault
        if vault is not None:
            meters.gauge("penstock_content_kept_total", lambda: iter([((), float(vault.kept))]))
            meters.gauge("penstock_content_lost_total", lambda: iter([((), float(vault.lost))]))
        meters.gauge("penstock_journal_failures_total", lambda: iter([((), float(counts.failures))]))
        meters.gauge("penstock_journal_lost_records_total", lambda: iter([((), float(counts.lost))]))

    def _faults(self) -> Iterator[tuple[tuple[str, ...], float]]:
        counted = Counter(fault.kind for fault in self.index.faults)
        for kind in FAULT_KINDS:
            yield (kind,), float(counted[kind])

    def _waiting(self) -> Iterator[tuple[tuple[str, ...], float]]:
        for state in self.pools.all():
            for priority, waiting in state.waiting_by_priority():
                yield (state.pool.name, priority), float(waiting)
