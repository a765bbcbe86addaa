"""A look at this machine: processes, disks, journals, replicas, what gateways and shipper tell. Asks nobody who is not asked anyway."""

import asyncio
import shutil
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from penstock.core.errors import PenstockError, Unavailable
from penstock.core.exchange import Exchange
from penstock.core.settings import Settings, load_settings
from penstock.core.snapshot import Snapshot
from penstock.diagnosis.seen import Disk, Journal, Machine, Program, Reader, ReplicaSeen
from penstock.diagnosis.traffic import WINDOW_S, traffic_of
from penstock.journal.recent import recent
from penstock.journal.segments import segment_sizes
from penstock.supervisor.counted import Counted, counted
from penstock.supervisor.folder import DataFolder
from penstock.supervisor.health import fetch, status_of, unverified
from penstock.supervisor.ports import reachable
from penstock.supervisor.procfs import environment_of, halted_under
from penstock.supervisor.query import processes
from penstock.supervisor.records import Records
from penstock.supervisor.values import ProcessStatus, RunRecord

_PATIENCE_S = 3.0  # of everything that is asked
_MOMENT_S = 1.0  # between two looks at the same count
_MOST_REPLICAS = 64  # that are dialled
_SINKS = {
    "control": "ship.control_url",
    "otlp": "ship.otlp_url",
    "zipkin": "ship.zipkin_url",
    "elasticsearch": "ship.elasticsearch_url",
    "parquet": "analytics.folder",
    "stdout": "ship.stdout",
}


async def look(settings: Settings, now: float, window_s: float = WINDOW_S) -> Machine:
    """What there is to see of the installation in `settings.data`, within a few seconds. Nothing that is found makes it fail.

    Args:
        settings: where the data folder is; of what runs there its own settings count.
        now: Unix seconds.
        window_s: the requests of so many seconds before are told.
    """
    folder = DataFolder(Path(settings.data))
    if not folder.root.is_dir():
        return Machine(data=str(folder.root), missing=True)
    statuses, complaint = await _statuses(folder)
    settings = _running_settings(statuses, settings)
    halted = halted_under(one.pid for one in statuses if one.pid)
    programs, gateway, told = await asyncio.gather(
        asyncio.gather(*(_program(one, halted.get(one.pid, 0)) for one in statuses)),
        _gateway(statuses, settings),
        _shipper(statuses),
    )
    counts = gateway.counts
    answers = {one.url: one.status for one in programs if one.url}
    journals = _journals(folder, settings, counts, await _again(gateway))
    return Machine(
        data=str(folder.root),
        supervisor=complaint,
        shipper=told[1],
        metrics=counts is not None,
        programs=tuple(gateway.fill(programs)),
        disks=tuple(_disks(folder)),
        readers=told[0],
        journals=journals,
        replicas=await _replicas(folder, counts, answers),
        queues=counts.queues() if counts is not None else (),
        ledgerless=counts.ledgerless() if counts is not None else (),
        shared_ledger=bool(settings.gateway.redis_url),
        sinks=_SINKS,
        certificate=gateway.certificate,
        readable_secrets=tuple(_secrets(folder)),
        traffic=traffic_of(await asyncio.to_thread(_recent, folder), now, window_s),
    )


async def _statuses(folder: DataFolder) -> tuple[list[ProcessStatus], str]:
    """What the supervisor says of its processes, and itself; if it says nothing, what its records say, and why."""
    records = Records(folder.run)
    known = records.all()
    watchers = [_recorded(one, lives=records.lives(one)) for one in known if one.spec.kind == "supervisor"]
    try:
        return await processes(folder.supervisor_socket, _PATIENCE_S), ""
    except Unavailable as error:
        kept = [one for one in known if one.spec.kind not in {"supervisor", "launcher"}]
        return [*watchers, *(_recorded(one, lives=records.lives(one)) for one in kept)], error.message


def _recorded(one: RunRecord, *, lives: bool) -> ProcessStatus:
    return ProcessStatus(
        name=one.spec.name,
        kind=one.spec.kind,
        state="running" if lives else "stopped",
        pid=one.pid if lives else 0,
        port=one.port,
        url=one.url,
        restarts=one.restarts,
        since=one.at,
        streak=0,
        last_exit="",
    )


def _running_settings(statuses: Iterable[ProcessStatus], given: Settings) -> Settings:
    """What the processes were started with, which the environment of who looks need not be."""
    for one in statuses:
        if one.kind in {"gateway", "ship", "control"} and one.pid:
            environment = environment_of(one.pid)
            if environment:
                try:
                    return msgspec.structs.replace(load_settings(environment), data=given.data)
                except PenstockError:
                    continue
    return given


async def _program(one: ProcessStatus, halted: int) -> Program:
    status, complaint = -1, ""
    if one.url and one.pid:
        status, body = await fetch(f"{one.url}/readyz", _PATIENCE_S)
        complaint = "" if status == 200 else body.decode("utf-8", "replace").strip()[:300]
    return Program(
        name=one.name,
        kind=one.kind,
        state=one.state,
        pid=one.pid,
        url=one.url,
        restarts=one.restarts,
        streak=one.streak,
        since=one.since,
        last_exit=one.last_exit,
        halted=halted,
        status=status,
        complaint=complaint,
    )


class _Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """What the port that all workers share answers; `status` is -1 if there is no worker here."""

    url: str = ""
    status: int = -1
    complaint: str = ""
    certificate: float = 0.0
    counts: Counted | None = None

    def fill(self, programs: Iterable[Program]) -> Iterable[Program]:
        """`programs`; what their common port answers is said of each worker, none of which can be asked alone."""
        for one in programs:
            if one.kind != "gateway" or not one.pid or self.status in {-1, 200}:
                yield one
            elif self.status or self.counts is None:
                yield msgspec.structs.replace(one, url=self.url, status=self.status, complaint=self.complaint)
            else:  # some worker told its metrics: this connection came to another one
                yield one


async def _gateway(statuses: Iterable[ProcessStatus], settings: Settings) -> _Gateway:
    port = next((one.port for one in statuses if one.kind == "gateway" and one.pid), 0)
    if not port:
        return _Gateway()
    host = reachable(settings.gateway.host)
    plain, sealed = (f"{scheme}://{host}:{port}" for scheme in ("http", "https"))
    url, certificate = plain, 0.0
    if settings.gateway.tls_certificate or (
        not await status_of(f"{plain}/healthz") and await status_of(f"{sealed}/healthz")
    ):
        url = sealed
        certificate = await asyncio.to_thread(_expiry, host, port)
    status, body = await fetch(f"{url}/readyz", _PATIENCE_S)
    _, text = await fetch(f"{url}/metrics", _PATIENCE_S)
    return _Gateway(
        url=url,
        status=status,
        complaint="" if status == 200 else body.decode("utf-8", "replace").strip()[:300],
        certificate=certificate,
        counts=counted(text) if text else None,
    )


def _expiry(host: str, port: int) -> float:
    """When the certificate that is shown there ends, in Unix seconds; 0.0 if none is shown."""
    from cryptography import x509

    try:
        shown = ssl.get_server_certificate((host, port), timeout=_PATIENCE_S)
        return x509.load_pem_x509_certificate(shown.encode()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return 0.0


class _Health(msgspec.Struct):
    readers: dict[str, Any]


async def _shipper(statuses: Iterable[ProcessStatus]) -> tuple[tuple[Reader, ...], str]:
    url = next((one.url for one in statuses if one.kind == "ship" and one.pid), "")
    if not url:
        return (), ""
    status, body = await fetch(f"{url}/healthz", _PATIENCE_S)
    try:
        told = msgspec.json.decode(body, type=_Health).readers
        return tuple(msgspec.convert({"name": name} | one, Reader) for name, one in told.items()), ""
    except (msgspec.DecodeError, TypeError):
        return (), f"{url}/healthz answers {status or 'nothing'}."


def _disks(folder: DataFolder) -> Iterable[Disk]:
    seen: set[int] = set()
    for path in (folder.root, folder.root / "journal", folder.root / "analytics", folder.logs):
        try:
            device = path.stat().st_dev
            usage = shutil.disk_usage(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            yield Disk(path=str(path), free=usage.free, total=usage.total)


async def _again(gateway: _Gateway) -> Counted | None:
    """The same counts a moment later, if records have been lost: whether they still are, one look does not tell."""
    if gateway.counts is None or not any(gateway.counts.journal()[0].values()):
        return None
    await asyncio.sleep(_MOMENT_S)
    _, text = await fetch(f"{gateway.url}/metrics", _PATIENCE_S)
    return counted(text) if text else None


def _journals(
    folder: DataFolder, settings: Settings, counts: Counted | None, later: Counted | None
) -> tuple[Journal, ...]:
    root = folder.root / "journal"
    try:
        names = sorted(path.name for path in root.iterdir() if path.is_dir())
    except OSError:
        return ()
    lost, failures = counts.journal() if counts is not None else ({}, {})
    now = later.journal()[0] if later is not None else lost
    return tuple(
        Journal(
            worker=name,
            bytes=sum(segment_sizes(root / name).values()),
            bound=settings.gateway.journal_disk_bytes,
            lost=lost.get(name, 0),
            failures=failures.get(name, 0),
            losing=max(0, now.get(name, 0) - lost.get(name, 0)),
        )
        for name in names
    )


async def _replicas(folder: DataFolder, counts: Counted | None, answers: dict[str, int]) -> tuple[ReplicaSeen, ...]:
    """Those of the Snapshot that gateways keep on the disk."""
    try:
        snapshot = msgspec.json.decode(folder.snapshot.read_bytes(), type=Snapshot)
    except (OSError, msgspec.DecodeError):
        return ()
    places = [(pool.name, replica) for pool in snapshot.pools for replica in pool.replicas][:_MOST_REPLICAS]
    found = await asyncio.gather(*(_dialled(replica.url, answers) for _, replica in places))
    return tuple(
        ReplicaSeen(
            pool=pool,
            id=replica.id,
            url=replica.url,
            ours=replica.url in answers,
            out=counts.out(pool, replica.id) if counts is not None else 0,
            workers=counts.workers() if counts is not None else 0,
            ejections=counts.ejections(pool, replica.id) if counts is not None else {},
            dialled=problem,
        )
        for (pool, replica), problem in zip(places, found, strict=True)
    )


async def _dialled(url: str, answers: dict[str, int]) -> str:
    """What goes wrong when `url` is asked; empty if anything answers."""
    if url in answers:
        return "" if answers[url] > 0 else "no answer"
    parts = urlsplit(url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=unverified() if parts.scheme == "https" else None
            )
            writer.write(f"GET /health HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode())
            return "" if await reader.read(12) else "it closes the connection without an answer"
    except TimeoutError:
        return f"no answer within {_PATIENCE_S:g} s"
    except (OSError, ValueError) as error:
        return (error.strerror if isinstance(error, OSError) else None) or str(error)
    finally:
        if writer is not None:
            writer.close()


def _secrets(folder: DataFolder) -> Iterable[str]:
    for path in (folder.admin_key, folder.demo_key, folder.service_token):
        if path.exists() and path.stat().st_mode & 0o077:
            yield str(path)


def _recent(folder: DataFolder) -> list[Exchange]:
    found: list[Exchange] = []
    for path in sorted((folder.root / "journal").glob("*/")):
        try:
            found += recent(path)
        except OSError:
            continue
    return found
