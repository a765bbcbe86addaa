"""One control process: its parts put together from what it is handed, served until it is told to stop."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from penstock.control.api.analytics import retention_router
from penstock.control.api.diagnosis import Look
from penstock.control.api.keystore import key_exchange_router
from penstock.control.api.monitoring import monitoring_token
from penstock.control.app import build_app
from penstock.control.bootstrap import bootstrap
from penstock.control.content.forget import Forgetter
from penstock.control.content.keystore import SharedKeystore
from penstock.control.content.opened import Contents
from penstock.control.context import Control
from penstock.control.deploy.canary_watch import Watch
from penstock.control.deploy.publisher import Publisher
from penstock.control.deploy.reconcile import Reconciler
from penstock.control.evaluators.loops import Evaluators
from penstock.control.experiments.evaluate import Evaluator
from penstock.control.experiments.kind import ExperimentKind
from penstock.control.experiments.life import active_experiments
from penstock.control.experiments.signal import Signal
from penstock.control.gates.examinations import Examinations, examinations_router
from penstock.control.ingest.reader import ingest_router
from penstock.control.leases import Lease
from penstock.control.pipelines.loop import Pipelines
from penstock.control.public import public_routers
from penstock.control.readiness import Readiness
from penstock.control.sockets import LendingConnection
from penstock.control.storage.storekeeper import Storekeeper
from penstock.control.versions.build_claims import build_claims_router
from penstock.control.versions.build_intake import BuildIntake
from penstock.control.versions.builds import Builds
from penstock.control.versions.signatures import sealing_under
from penstock.control.watch.alerts_act import AlertActor
from penstock.control.watch.log_alerts import LogAlerts
from penstock.control.watch.processes import Restarts
from penstock.control.watch.rotation import Rotation
from penstock.control.webhooks.loop import Dispatcher
from penstock.core.errors import Unavailable
from penstock.core.settings import Settings
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import Keystore
from penstock.runtime.port import ProcessList, Runtime
from penstock.store.blobs import open_blobs
from penstock.store.sql import open_database

_LOG = logging.getLogger("penstock.control")
_GC = (50_000, 20, 50)  # what is read in leaves no cycles; looking for them after every few would take half of the time
_DRAIN_S = 3


async def serve_control(
    *,
    settings: Settings,
    data: Path,
    service_token: str,
    keys: FileKeystore,
    gateway: httpx.AsyncClient,
    runtime: Runtime | None,
    processes: ProcessList | None = None,
    starter: Path | None,
    clock: Callable[[], float],
    extend: Callable[[FastAPI, Control], None] | None = None,
    look: Look | None = None,
    started: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve the control plane until SIGTERM or SIGINT, then drain.

    Args:
        settings: the whole tree.
        data: the data folder; it must be there.
        service_token: what gateways and the shipper show at /internal.
        keys: what content is encrypted under, on this machine; those of all hosts are in the database if `keys.shared` says so.
        gateway: where evaluators ask models.
        runtime: where replicas run; None: nothing is started here, deployments stay pending.
        processes: tells what is kept running on this machine, whose restarts are events; None: nobody knows.
        starter: a folder of starter versions; None: begin empty, without the demo tenant.
        clock: Unix seconds.
        extend: called with the app before it is served: mounts the console.
        look: looks at this machine, for /api/v1/diagnosis; None: control alone is asked.
        started: called with the URL once it listens.

    Raises:
        PenstockError: if the database, the blobs or the address cannot be had, or the first start fails; a sentence says why.
    """
    listening = _listen(settings.control.host, settings.control.port)
    try:
        database = await open_database(settings.control.database or f"sqlite+aiosqlite:///{data / 'penstock.db'}")
    except BaseException:
        listening.close()
        raise
    try:
        control = Control(
            settings=settings,
            data=data,
            database=database,
            blobs=open_blobs(settings.control.blobs, data / "blobs", database),
            service_token=service_token,
            clock=clock,
            entropy=os.urandom,
        )
        control.sealing = sealing_under(keys.hash_key)
        folders = Builds(control)
        publisher = Publisher(control, active_experiments=active_experiments)
        readiness = Readiness("the first start", *(("replicas",) if runtime is not None else ()))
        shared = SharedKeystore(database, keys, asyncio.get_running_loop(), clock) if settings.keys.shared else None
        store: Keystore = keys if shared is None else shared
        contents = Contents(control, store) if shared is None else Contents(control, store, shared.hosts)
        signal = Signal(Watch(publisher.reports.values))
        evaluators = Evaluators(control, store, signal, gateway)
        app = build_app(
            control,
            publisher,
            readiness,
            routers=(
                *public_routers(control, contents, store, shared, readiness, lambda: evaluators.workers, look),
                *(() if shared is None else (key_exchange_router(shared, keys.folder / "root.json"),)),
                ingest_router(signal, contents.forget_late),
                retention_router(),
                examinations_router(control, folders),
                build_claims_router(control, folders),
            ),
            kinds=(ExperimentKind(),),
        )
        if extend is not None:
            extend(app, control)
        server = _server(app)
        loop = asyncio.get_running_loop()

        def stopping() -> None:
            loop.call_soon_threadsafe(publisher.stop)  # from a signal handler

        server.stopping = stopping
        host, port = listening.getsockname()[:2]
        started(f"http://{host}:{port}")

        async def work() -> None:
            await _begin(control, contents, publisher, starter)
            readiness.done("the first start")
            gc.set_threshold(*_GC)
            await asyncio.gather(
                publisher.run(),
                Evaluator(control, signal).run(),
                evaluators.run(),
                Forgetter(control, contents.forget_strays).run(),
                *_loops(control, publisher, readiness, folders, runtime, processes),
            )

        await _until_served(server, listening, work())
    finally:
        listening.close()
        await database.close()


async def _begin(control: Control, contents: Contents, publisher: Publisher, starter: Path | None) -> None:
    """What is done once, before anything else runs; every step may be done again."""
    await asyncio.to_thread(monitoring_token, control)
    await bootstrap(control, starter=starter)
    if again := await contents.forget_again():
        _LOG.warning("%d keys that had been destroyed were there again, and were destroyed again", again)
    await publisher.refresh()


def _loops(
    control: Control,
    publisher: Publisher,
    readiness: Readiness,
    folders: Builds,
    runtime: Runtime | None,
    processes: ProcessList | None,
) -> list[Coroutine[Any, Any, None]]:
    """What runs as long as control does, beside experiments and content."""
    delivery = Lease(control, "delivery")
    loops = [
        LogAlerts(control).run(),
        AlertActor(control).run(),
        Storekeeper(control).run(),
        BuildIntake(control).run(),
        Pipelines(control, delivery).run(),
        Dispatcher(control, delivery).run(),
        Rotation(control, publisher.reports.values).run(),
    ]
    if runtime is not None:
        drain_s = control.settings.engine.drain_s
        loops.append(Reconciler(control, publisher, runtime, readiness, drain_s=drain_s, builds=folders).run())
        loops.append(Examinations(control, runtime).run())
    if processes is not None:
        loops.append(Restarts(control, processes).run())
    return loops


async def _until_served(server: "_Server", listening: socket.socket, work: Coroutine[Any, Any, None]) -> None:
    """Serve until told to stop; if `work` fails, stop and raise what it raised."""
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="control http")
    working = asyncio.create_task(work, name="control loops")
    try:
        await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        if server.stopping is not None:
            server.stopping()
        await serving
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


class _Server(uvicorn.Server):
    """uvicorn, which lets go of those who wait for a Snapshot when it is told to stop."""

    stopping: Callable[[], None] | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        """As uvicorn's, and wake the long polls."""
        if self.stopping is not None:
            self.stopping()
        super().handle_exit(sig, frame)


def _server(app: FastAPI) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=LendingConnection,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_DRAIN_S,
            timeout_keep_alive=75,
            server_header=False,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"Control cannot listen on {host}:{port}: {error.strerror or error}.",
            code="address_unavailable",
            hint="Choose another port with --control-port.",
        ) from None
    return listening
