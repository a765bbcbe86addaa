"""Faults that are planted in a running installation: each is really there when its block begins, and gone some time after it has ended.

A fault yields the name and the subject of the cause that is the true one.
"""

import asyncio
import fcntl
import json
import os
import signal
import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from penstock.core.errors import Unavailable
from penstock.supervisor.query import processes
from tests.gateway.mock_upstream import MockUpstream
from tests.journal.sinks.elastic_server import Elastic
from tests.net.certificates import make_certificate
from tests.ports import free_ports
from tests.store.redis_server import RedisServer
from tests.system.starter import Up

PRICE = {"prompt": 1.0, "completion": 2.0}
True_ = tuple[str, str]


async def when(look: Callable[[], Awaitable[bool]], deadline_s: float = 60.0) -> None:
    """Wait until `look` says yes."""
    async with asyncio.timeout(deadline_s):
        while not await look():
            await asyncio.sleep(0.1)


class Bed:
    """A running installation, and what stands around it."""

    def __init__(self, up: Up, *, elastic: Elastic, redis: RedisServer | None = None, window_s: float = 8) -> None:
        self.up = up
        self.elastic = elastic
        self.redis = redis
        self.http = httpx.AsyncClient(timeout=30, verify=False)
        self.window_s = window_s  # the requests of so many seconds count: what is healed is soon forgotten
        self.own = ""  # key of a tenant that nothing happens to
        self.admin = {"authorization": f"Bearer {up.secret('admin.key')}"}

    async def prepare(self) -> None:
        await self.apply(("Tenant", "watcher", {}))
        self.own = (await self.key("watcher"))[1]
        await self.answered("nobody", self.own, {404}, 2)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        reply = await self.http.request(method, f"{self.up.control}/api/v1{path}", json=body, headers=self.admin)
        assert reply.status_code < 300, reply.text
        return reply.json() if reply.content else None

    async def apply(self, *documents: tuple[str, str, dict[str, Any]]) -> None:
        told = [{"kind": kind, "name": name, "spec": spec} for kind, name, spec in documents]
        await self.call("POST", "/apply", {"documents": told})

    async def key(self, tenant: str) -> tuple[str, str]:
        """A new key's id and text."""
        made = await self.call("POST", "/keys", {"name": tenant, "tenant": tenant})
        return made["id"], made["key"]

    async def ask(self, model: str, key: str, text: str = "hello", timeout_s: float = 20.0) -> int:
        """The status of a request; 0 if none came."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
        try:
            async with httpx.AsyncClient(timeout=timeout_s, verify=False) as fresh:
                reply = await fresh.post(
                    f"{self.up.gateway}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
                )
        except httpx.HTTPError:
            return 0
        return reply.status_code

    async def answered(self, model: str, key: str, statuses: set[int], count: int = 1, text: str = "hello") -> None:
        """Ask until `count` answers had one of `statuses`."""
        found = 0

        async def enough() -> bool:
            nonlocal found
            found += await self.ask(model, key, text) in statuses
            return found >= count

        await when(enough)

    async def samples(self, name: str) -> list[float]:
        text = (await self.http.get(f"{self.up.gateway}/metrics")).text
        return [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]

    async def process(self, name: str) -> Any:
        for one in await processes(self.up.data / "supervisor.sock"):
            if one.name.startswith(name):
                return one
        raise AssertionError(name)

    async def doctor(self) -> dict[str, Any]:
        """What `penstock doctor` says, as a user runs it."""
        from tests.system.program import doctor_told

        return await asyncio.to_thread(doctor_told, self.up, self.window_s)

    async def well(self) -> None:
        """Wait until nothing is wrong."""
        told: dict[str, Any] = {}

        async def healthy() -> bool:
            nonlocal told
            told = await self.doctor()
            return bool(told["healthy"])

        try:
            await when(healthy, 120)
        except TimeoutError:
            raise AssertionError(f"it does not heal: {told['causes']}") from None


async def adopted(bed: Bed, name: str, urls: list[str], price: dict[str, float] | None, **spec: Any) -> str:
    """A pool, a route and a tenant of that name; the key of the tenant."""
    pool = {"adopt": urls, **({"price": price} if price else {}), **spec}
    await bed.apply(("Pool", name, pool), ("Route", name, {"to": [{"pool": name}]}), ("Tenant", name, {}))
    return (await bed.key(name))[1]


async def removed(bed: Bed, name: str) -> None:
    for key in await bed.call("GET", "/keys"):
        if key["tenant"] == name and not key["revoked_at"]:
            await bed.call("POST", f"/keys/{key['id']}/revoke")
    for path in (f"/routes/{name}", f"/pools/{name}", f"/tenants/{name}"):
        with suppress(AssertionError):
            await bed.call("DELETE", path)


@asynccontextmanager
async def halted(bed: Bed, name: str) -> AsyncIterator[True_]:
    """A process that is there, and is not run: nothing restarts it."""
    pid = (await bed.process(name)).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield "process_halted", (await bed.process(name)).name
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def engine_stalled(bed: Bed) -> AsyncIterator[True_]:
    """The process that computes, below the engine's own, is stopped while a request runs."""
    engine = await bed.process("engine-support-bot")
    child = next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text().rpartition(")")[2].split()[1] == str(engine.pid)
    )
    os.kill(child, signal.SIGSTOP)
    try:
        assert await bed.ask("support-bot", bed.up.secret("demo.key"), timeout_s=3) == 0
        yield "process_halted", engine.name
    finally:
        os.kill(child, signal.SIGCONT)


def control_halted(bed: Bed) -> AbstractAsyncContextManager[True_]:
    return halted(bed, "control")


def worker_halted(bed: Bed) -> AbstractAsyncContextManager[True_]:
    return halted(bed, "gateway-1")


@asynccontextmanager
async def wrong_address(bed: Bed) -> AsyncIterator[True_]:
    key = await adopted(bed, "misdirected", [f"http://127.0.0.1:{free_ports(1)[0]}"], PRICE)
    await bed.answered("misdirected", key, {502, 503, 504}, 3)
    yield "pool_unreachable", "misdirected"
    await removed(bed, "misdirected")


@asynccontextmanager
async def sink_unreachable(bed: Bed) -> AsyncIterator[True_]:
    port = bed.elastic.server.port
    await bed.elastic.stop()
    try:
        await bed.ask("nobody", bed.own)
        ship = json.loads((bed.up.data / "run" / "ship.json").read_text())["url"]

        async def noticed() -> bool:
            told = (await bed.http.get(f"{ship}/healthz")).json()["readers"]["elasticsearch"]
            return bool(told["problem"])

        await when(noticed)
        yield "sink_failing", "elasticsearch"
    finally:
        bed.elastic.renew()
        await bed.elastic.start(port)


@asynccontextmanager
async def disk_full(bed: Bed) -> AsyncIterator[True_]:
    """DATA/journal is a file system of its own, of a few megabytes."""
    journal = bed.up.data / "journal"
    with (journal / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    try:

        async def lost() -> bool:
            await bed.ask("nobody", bed.own)
            return sum(await bed.samples("penstock_journal_lost_records_total{")) > 3

        await when(lost)
        yield "disk_full", str(journal)
    finally:
        (journal / "ballast").unlink()


@asynccontextmanager
async def certificate_over(bed: Bed) -> AsyncIterator[True_]:
    folder = bed.up.data.parent
    port = int(bed.up.gateway.rpartition(":")[2])
    before = ssl.get_server_certificate(("127.0.0.1", port))

    async def shown() -> bool:
        found = {await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port)) for _ in range(6)}
        return before not in found and len(found) == 1

    make_certificate(folder, serial=2, days=-0.5)
    await when(shown)
    yield "certificate_expired", "gateway certificate"
    make_certificate(folder, serial=3, days=90)


@asynccontextmanager
async def limits_used_up(bed: Bed) -> AsyncIterator[True_]:
    await bed.apply(("Tenant", "frugal", {"limits": {"requests_per_minute": 2}}))
    _, key = await bed.key("frugal")
    await bed.answered("nobody", key, {429}, 5)
    yield "limits_exhausted", "frugal"
    await removed(bed, "frugal")


@asynccontextmanager
async def key_revoked(bed: Bed) -> AsyncIterator[True_]:
    await bed.apply(("Tenant", "former", {}))
    name, key = await bed.key("former")
    await bed.answered("nobody", key, {404}, 2)
    await bed.call("POST", f"/keys/{name}/revoke")
    await bed.answered("nobody", key, {401}, 6)
    yield "keys_refused", "keys"
    await removed(bed, "former")


@asynccontextmanager
async def ledger_away(bed: Bed) -> AsyncIterator[True_]:
    assert bed.redis is not None
    bed.redis.kill()
    try:

        async def noticed() -> bool:
            await bed.ask("nobody", bed.own)
            return 0.0 in await bed.samples("penstock_ledger_up{")

        await when(noticed)
        yield "ledger_down", "ledger"
    finally:
        await bed.redis.start()


@asynccontextmanager
async def overloaded(bed: Bed) -> AsyncIterator[True_]:
    """One place, none to wait, and many who ask."""
    engine = MockUpstream(pause_s=0.5)
    key = await adopted(bed, "crowded", [await engine.start()], PRICE, max_in_flight=1, max_waiting=1, max_wait_s=0.2)
    await bed.answered("crowded", key, {200})

    async def crowd() -> bool:
        found = await asyncio.gather(*(bed.ask("crowded", key, "a b c") for _ in range(12)))
        return sum(status in {429, 503} for status in found) > 5

    await when(crowd)
    yield "pool_overloaded", "crowded"
    await removed(bed, "crowded")
    await engine.stop()


@asynccontextmanager
async def bad_entry(bed: Bed) -> AsyncIterator[True_]:
    """A policy that control would never have taken, as a newer or damaged control might have left it in the database."""
    rules = [{"name": "cards", "detect": "pattern", "patterns": ["x"], "on": ["input"], "do": "flag"}]
    await bed.apply(("Policy", "broken", {"rules": rules}))
    with sqlite3.connect(bed.up.data / "penstock.db", timeout=30) as database:
        torn = json.dumps({"rules": [rules[0] | {"patterns": ["("]}]})
        database.execute("UPDATE resources SET spec = ? WHERE kind = 'Policy' AND name = 'broken'", (torn,))
        database.execute("UPDATE sequences SET value = value + 1 WHERE name = 'generation'")

    async def refused() -> bool:
        told = (await bed.call("GET", "/gateways"))["gateways"]
        return all(one["fault_count"] for one in told)

    await when(refused)
    yield "snapshot_fault", ""
    await bed.apply(("Policy", "broken", {"rules": rules}))
    await bed.call("DELETE", "/policies/broken")


@asynccontextmanager
async def worker_loops(bed: Bed) -> AsyncIterator[True_]:
    """A worker that finds its journal taken each time that it starts."""
    number = os.open(bed.up.data / "journal" / "gateway-1" / "lock", os.O_RDWR)
    os.kill((await bed.process("gateway-1")).pid, signal.SIGKILL)
    try:

        def taken() -> bool:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        while not taken():  # the one that was killed still holds it, or its successor was quicker
            with suppress(ProcessLookupError, Unavailable):
                os.kill((await bed.process("gateway-1")).pid or -1, signal.SIGKILL)
            await asyncio.sleep(0.02)

        async def streak() -> bool:
            return bool((await bed.process("gateway-1")).streak >= 2)

        await when(streak)
        yield "process_restarting", "gateway-1"
    finally:
        os.close(number)


@asynccontextmanager
async def no_price(bed: Bed) -> AsyncIterator[True_]:
    engine = MockUpstream()
    key = await adopted(bed, "gratis", [await engine.start()], None)
    await bed.answered("gratis", key, {200}, 5)
    yield "price_missing", "gratis"
    await removed(bed, "gratis")
    await engine.stop()


@asynccontextmanager
async def slow_replica(bed: Bed) -> AsyncIterator[True_]:
    engines = [MockUpstream(pause_s=pause) for pause in (0.0, 0.0, 0.0, 1.0)]
    urls = [await engine.start() for engine in engines]
    key = await adopted(bed, "uneven", urls, PRICE)

    async def left_out() -> bool:
        await asyncio.gather(*(bed.ask("uneven", key, f"word {n}") for n in range(24)))
        text = (await bed.http.get(f"{bed.up.gateway}/metrics")).text
        return any('reason="slow"' in line and 'pool="uneven"' in line for line in text.splitlines())

    await when(left_out, 120)
    yield "replica_slow", "uneven"
    await removed(bed, "uneven")
    for engine in engines:
        await engine.stop()


FAULTS: dict[str, Callable[[Bed], AbstractAsyncContextManager[True_]]] = {
    "an engine that is stalled": engine_stalled,
    "a pool with a wrong address": wrong_address,
    "control is stopped": control_halted,
    "the journal's disk is full": disk_full,
    "a sink cannot be reached": sink_unreachable,
    "the certificate has ended": certificate_over,
    "a tenant's limits are used up": limits_used_up,
    "a key is revoked and still used": key_revoked,
    "the ledger of limits is down": ledger_away,
    "a pool has more requests than it can answer": overloaded,
    "an entry of the Snapshot is bad": bad_entry,
    "a worker ends at each start": worker_loops,
    "a pool has no price": no_price,
    "a replica is slower than its peers": slow_replica,
    "a gateway worker is stopped": worker_halted,
}
