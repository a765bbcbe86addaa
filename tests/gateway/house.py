"""A gateway worker of its own over mock replicas, with a real journal on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from penstock.access.limits import SEATS
from penstock.core.digests import hash_secret
from penstock.core.exchange import Exchange, Observation, Opened, Record
from penstock.core.settings import GatewaySettings
from penstock.core.snapshot import KeyEntry, Pool, Replica, Route, Snapshot, Target, TenantEntry
from penstock.gateway.keep import write_snapshot
from penstock.gateway.ports import SharedCache
from penstock.gateway.serve import Worker
from penstock.journal.format import HEADER_BYTES, decode_frames
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.journal.telling import with_texts
from penstock.journal.vault import Vault
from penstock.journal.writer import JournalWriter
from penstock.store.ledger import LocalLedger
from penstock.store.limiter import Limiter
from tests.gateway.mock_upstream import MockUpstream

KEY = "sk-penstock-test"
OTHER = "sk-penstock-other"


class House:
    """What a test needs of it."""

    def __init__(self, worker: Worker, mocks: list[MockUpstream], journal: Path, ledger: LocalLedger) -> None:
        self.worker = worker
        self.mocks = mocks
        self.mock = mocks[0] if mocks else MockUpstream()
        self.ledger = ledger
        self._journal = journal

    @property
    def port(self) -> int:
        return self.worker.server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def records(self) -> list[Record]:
        records: list[Record] = []
        for path in sorted(self._journal.glob("*.pjl")):
            records += decode_frames(path.read_bytes()[HEADER_BYTES:])
        return records

    def exchanges(self) -> list[Exchange]:
        return [record for record in self.records() if isinstance(record, Exchange)]

    def opened(self) -> list[Opened]:
        return [record for record in self.records() if isinstance(record, Opened)]

    def observations(self) -> list[Observation]:
        return [record for record in self.records() if isinstance(record, Observation)]

    def take(self, **changes: Any) -> None:
        """Swaps in the Snapshot with `changes`."""
        now = self.worker.gateway.index.snapshot
        assert self.worker.gateway.take(msgspec.structs.replace(now, generation=now.generation + 1, **changes))

    def told(self) -> list[Observation]:
        """The observations, with their texts."""
        keys = FileKeystore.open(self._journal.parents[1] / "keys", Wrapping(bytes(32)))
        try:
            return [with_texts(keys, one) for one in self.observations()]
        finally:
            keys.close()

    async def settled(self) -> None:
        """Nothing is in flight, held or reserved any more."""
        gateway = self.worker.gateway
        await until(lambda: gateway.meters.in_flight == 0 and not gateway.recorder.pending)
        for state in gateway.pools.all():
            assert state.taken == 0
            assert state.balancer.in_flight == 0
        assert self.ledger.used("key:key_1", SEATS, time.time()) == 0


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Returns when `condition` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come to hold"
        await asyncio.sleep(0.002)


def snapshot(
    urls: list[str],
    *,
    pool: dict[str, Any] | None = None,
    route: dict[str, Any] | None = None,
    key: dict[str, Any] | None = None,
    tenant: dict[str, Any] | None = None,
    **more: Any,
) -> Snapshot:
    """Two tenants with a key each, one pool, one route `mock`."""
    entry = Pool(
        name="pool",
        replicas=tuple(Replica(id=f"r{index}", url=url) for index, url in enumerate(urls)),
        version="mock:v1.0.0",
        digest="sha256:" + "ab" * 32,
        **(pool or {}),
    )
    return Snapshot(
        generation=1,
        keys=(
            KeyEntry(id="key_1", hash=hash_secret(KEY), tenant="acme", **(key or {})),
            KeyEntry(id="key_2", hash=hash_secret(OTHER), tenant="other"),
        ),
        tenants=(TenantEntry(name="acme", **(tenant or {})), TenantEntry(name="other")),
        pools=(entry, *more.pop("pools", ())),
        routes=(Route(name="mock", **{"to": (Target(pool="pool"),), **(route or {})}), *more.pop("routes", ())),
        **more,
    )


@asynccontextmanager
async def running(
    data: Path,
    *,
    replicas: int = 1,
    pause_s: float = 0.0,
    settings: dict[str, Any] | None = None,
    shared: SharedCache | None = None,
    vault: Vault | None = None,
    damaged: bytes = b"",
    others: tuple[str, ...] = (),
    **more: Any,
) -> AsyncIterator[House]:
    """A worker over `replicas` mocks and the servers at `others`; `more` goes to `snapshot`, and `damaged` is on disk instead of one."""
    mocks = [MockUpstream(pause_s=pause_s) for _ in range(replicas)]
    urls = [*[await mock.start() for mock in mocks], *others]
    file = data / "gateway" / "snapshot.json"
    write_snapshot(file, snapshot(urls, **more))
    if damaged:
        file.write_bytes(damaged)
    loop = asyncio.get_running_loop()
    journal = JournalWriter.open(data / "journal" / "w0", "w0", loop=loop, clock=time.time)
    keys = None if vault is not None else FileKeystore.open(data / "keys", Wrapping(bytes(32)))
    ledger = LocalLedger()
    limiter = Limiter(ledger, epoch=time.time() - time.monotonic())
    worker = Worker(
        settings=GatewaySettings(**{"port": 0, "drain_s": 2, **(settings or {})}),
        data=data,
        worker="w0",
        journal=journal,
        limiter=limiter,
        service_token="token",
        subject_key=bytes(32),
        shared=shared,
        vault=vault if keys is None else Vault(keys),
    )
    await worker.start()
    try:
        yield House(worker, mocks, data / "journal" / "w0", ledger)
    finally:
        await worker.stop()
        for mock in mocks:
            mock.gate.set()
            await mock.stop()
        journal.close()
        if keys is not None:
            keys.close()
