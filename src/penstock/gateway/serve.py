"""One gateway worker, from its first socket to its last reply."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
from pathlib import Path

from penstock.core.errors import Damaged, Unavailable
from penstock.core.settings import GatewaySettings
from penstock.core.snapshot import Snapshot
from penstock.gateway.app import App
from penstock.gateway.edge import Edge, server_limits
from penstock.gateway.follow import Follower
from penstock.gateway.gateway import Gateway
from penstock.gateway.keep import mark, read_snapshot, set_aside
from penstock.gateway.pins import Pins
from penstock.gateway.ports import Journal, Limiter, SharedCache, Vault
from penstock.gateway.probes import Probes
from penstock.gateway.siblings import Siblings
from penstock.gateway.sweep import Sweep
from penstock.gateway.tally import SUFFIX as COUNTERS
from penstock.gateway.tally import Tally
from penstock.net.client import Client
from penstock.net.server import Server

_log = logging.getLogger("penstock.gateway")
_GC = (50_000, 20, 50)  # a request leaves no cycles; the collector need not look after every few


class Worker:
    """Everything of one worker, started and stopped together.

    Attributes:
        gateway: what its requests share.
        server: its public server; `server.port` is where it listens.
        edge: that server's address and certificate.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        data: Path,
        worker: str,
        journal: Journal,
        limiter: Limiter,
        service_token: str,
        subject_key: bytes,
        shared: SharedCache | None = None,
        vault: Vault | None = None,
    ) -> None:
        self._settings = settings
        limits = server_limits(settings, _raise_descriptors())
        if limits.max_connections < settings.max_connections:
            _log.warning("open files are limited: only %d connections are taken", limits.max_connections)
        self._client = Client(max_connections=max(1024, settings.max_connections))
        self._file = Path(settings.snapshot_file) if settings.snapshot_file else data / "gateway" / "snapshot.json"
        self.gateway = Gateway(
            worker=worker,
            snapshot=Snapshot(generation=0),
            journal=journal,
            limiter=limiter,
            client=self._client,
            subject_key=subject_key,
            cache_bytes=settings.cache_bytes,
            notice_per_s=settings.notice_per_s,
            shared=shared,
            vault=vault,
            pins=Pins(data / "gateway" / "sticky"),
        )
        self.app = App(self.gateway)
        self.server = Server(self.app, limits=limits)
        meters = self.gateway.meters
        self._tally = Tally(data / "gateway" / f"{worker}{COUNTERS}", data / "journal" / worker, meters)
        self._siblings = Siblings(data / "run", worker, meters, self._client, self._tally)
        self.app.collect = self._siblings.collect
        self._token = service_token
        self._following: asyncio.Task[None] | None = None
        self._probes = Probes(self.gateway.pools, self._client, self.gateway.draw)
        self._probing: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.edge = Edge(settings, self.server, self.gateway.meters)

    async def start(self) -> None:
        """Listens, with the Snapshot that is on disk; from then on it follows newer ones.

        Raises:
            Unavailable: if the address cannot be had.
            Damaged: if the file holds no Snapshot and there is no control to have another one from.
        """
        settings = self._settings
        self._tally.start()
        await self._take_kept()
        follower = Follower(
            self.gateway, self._client, file=self._file, control_url=settings.control_url, token=self._token
        )
        try:
            await self._siblings.start()
            await self.server.start(unix=self._siblings.socket(".api"))
        except OSError as error:
            raise Unavailable(f"The gateway's own sockets cannot be made: {error.strerror or error}.") from None
        await self.edge.start()
        self._following = asyncio.create_task(follower.run())
        self._probing = asyncio.create_task(self._probes.run())
        self._sweeping = asyncio.create_task(Sweep(self.gateway).run())

    async def _take_kept(self) -> None:
        known = mark(self._file)
        try:
            snapshot = await asyncio.to_thread(read_snapshot, self._file)
        except Damaged as error:
            if not self._settings.control_url:
                raise
            _log.error("%s Until control has told one, every request is answered with 503.", error)
            set_aside(self._file, known)
            return
        if snapshot is not None and not self.gateway.take(snapshot):
            _log.error("the Snapshot in %s was refused: %s", self._file, self.gateway.refused)

    async def stop(self) -> None:
        """Drains: what is in flight is answered, then everything closes."""
        self.app.draining = True
        self.edge.stop()
        await self.server.drain(self._settings.drain_s)
        for task in (self._following, self._probing, self._sweeping):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._siblings.stop()
        await self.gateway.shadows.stop()
        await self._client.close()
        self.gateway.recorder.flush()  # what was cut off in the last turns; the journal closes next
        self._tally.stop()

    async def followed(self) -> None:
        """Returns or raises only if following Snapshots ends, which it should not."""
        if self._following is not None:
            await self._following


async def serve_gateway(
    *,
    settings: GatewaySettings,
    data: Path,
    worker: str,
    journal: Journal,
    limiter: Limiter,
    service_token: str,
    subject_key: bytes,
    shared: SharedCache | None = None,
    vault: Vault | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains for up to `settings.drain_s` and returns.

    Journal and limiter are the caller's to close, after this has returned.

    Args:
        settings: where to listen, bounds, where control is.
        data: the data folder.
        worker: this worker's name, unique on the host.
        journal: where records go; already open, on the running loop.
        limiter: the limits of keys and tenants.
        service_token: what is shown to control.
        subject_key: the key under which names of people are hashed.
        shared: answers that gateways keep for each other, if they do.
        vault: where content is sealed; None: none is kept.

    Raises:
        Unavailable: if the address cannot be had.
        Damaged: if the Snapshot on disk is none.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    running = Worker(
        settings=settings,
        data=data,
        worker=worker,
        journal=journal,
        limiter=limiter,
        service_token=service_token,
        subject_key=subject_key,
        shared=shared,
        vault=vault,
    )
    if running.edge.sealed:
        loop.add_signal_handler(signal.SIGHUP, running.edge.renew)
    await running.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC)
    waiting = {asyncio.create_task(stopped.wait()), asyncio.create_task(running.followed())}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await running.stop()
    for task in done:
        task.result()


def _raise_descriptors() -> int:
    """As many open files as the system allows, and how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
