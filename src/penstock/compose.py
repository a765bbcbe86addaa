"""The only place where parts are wired together: one function a process. Commands call these and nothing else.

Imports stand inside the functions, so that a process loads what it runs and no more. The file is long because wiring may stand nowhere else.
"""

import asyncio
import hashlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.core.errors import BadRequest, Unavailable
from penstock.core.settings import Settings, ShipSettings, load_settings
from penstock.supervisor.ports import reachable

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI
    from prometheus_client.registry import Collector

    from penstock.control.context import Control
    from penstock.journal.analytics.sink import ParquetSink
    from penstock.journal.ship import Sink
    from penstock.journal.traces import Carrier
    from penstock.store.cache_redis import RedisCache as Answers
    from penstock.store.ledger_redis import RedisLedger as Shared
    from penstock.supervisor.folder import DataFolder
    from penstock.supervisor.launcher import Progress

_LOCK_PATIENCE_S = 5.0
_EXAMINER_NICE = 10
_FLUSH_S = 5.0  # how long a shipper that was told to stop goes on passing on what is left


def program() -> tuple[str, ...]:
    """The command line of `penstock` itself, whatever the working folder holds."""
    return (sys.executable, "-P", "-m", "penstock.cli")


def read_settings(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from `penstock.toml` (or the file that PENSTOCK_CONFIG names), the environment and `flags`.

    Raises:
        BadRequest: if the file is not there or a setting is wrong; the message names it.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("PENSTOCK_CONFIG")
    file = Path(named or "penstock.toml")
    if named and not file.is_file():
        raise BadRequest(f"The settings file {named} is not there; PENSTOCK_CONFIG names it.", param="PENSTOCK_CONFIG")
    return load_settings(environ, file if file.is_file() else None, flags)


def log_to_stdout(level: int = logging.INFO) -> None:
    """Plain lines on stdout: time, level, logger, text."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=level,
        stream=sys.stdout,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )
    for noisy in ("alembic", "asyncio", "httpcore", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


# -- the whole of it on one machine ----------------------------------------------------------------------------------


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `penstock up` tells when everything answers."""

    gateway: str
    console: str
    data: str
    admin_key_file: str
    grpc: str  # host:port; "" if there is none
    demo_key_file: str  # "" if there is no demo tenant
    pid: int
    seconds: float


def resolved_for_up(settings: Settings) -> Settings:
    """`settings` with what follows from running everything on one machine."""
    control_url = f"http://{reachable(settings.control.host)}:{settings.control.port}"
    return msgspec.structs.replace(
        settings,
        data=str(Path(settings.data).absolute()),
        gateway=msgspec.structs.replace(
            settings.gateway,
            control_url=control_url,
            grpc_port=settings.gateway.grpc_port if has_grpc() else 0,
            tls_certificate=_absolute(settings.gateway.tls_certificate),
            tls_key=_absolute(settings.gateway.tls_key),
        ),
        control=msgspec.structs.replace(
            settings.control, monitoring_token_file=_absolute(settings.control.monitoring_token_file)
        ),
        ship=msgspec.structs.replace(settings.ship, control_url=control_url),
        keys=msgspec.structs.replace(
            settings.keys, master_file=_absolute(settings.keys.master_file), folder=_absolute(settings.keys.folder)
        ),
    )


def _absolute(file: str) -> str:
    return str(Path(file).absolute()) if file else ""


def _gateway_url(settings: Settings) -> str:
    """Where this machine reaches the gateway."""
    scheme = "https" if settings.gateway.tls_certificate else "http"
    return f"{scheme}://{reachable(settings.gateway.host)}:{settings.gateway.port}"


def run_up(settings: Settings, *, resume: bool, progress: "Progress", announce: Callable[[Welcome], None]) -> int:
    """`penstock up`: runs everything until told to stop; the exit status.

    With `resume` it takes over from a launcher that was killed: nothing is checked or said. `announce` is called once, when
    gateway and control are ready; `progress` is told every step before.

    Raises:
        PenstockError: if the folder or a port cannot be had, or a process does not start.
    """
    from penstock.supervisor.folder import DataFolder

    settings = resolved_for_up(settings)
    folder = DataFolder(Path(settings.data))
    folder.prepare()
    first = not folder.admin_key.exists()
    with folder.lock(folder.lock_file, _LOCK_PATIENCE_S if resume else 0.0):
        if not resume:
            _check_before_start(settings, folder)
        return asyncio.run(_up(settings, folder, resume=resume, first=first, progress=progress, announce=announce))


def _check_before_start(settings: Settings, folder: "DataFolder") -> None:
    from penstock.gateway.edge import read_certificate
    from penstock.journal.keyring import open_keys
    from penstock.supervisor.ports import check_port
    from penstock.supervisor.records import Records

    starter_folder(settings)
    read_certificate(settings.gateway)
    open_keys(settings).close()
    records = Records(folder.run)
    living = {record.spec.kind for record in records.all() if records.lives(record)}
    if "control" not in living:
        folder.check_files()
        check_port(settings.control.host, settings.control.port, flag="--control-port")
    if "gateway" not in living:
        check_port(settings.gateway.host, settings.gateway.port, flag="--gateway-port")
    if "grpc" not in living and settings.gateway.grpc_port:
        check_port(settings.gateway.host, settings.gateway.grpc_port, flag="--grpc-port")
    if "ship" not in living:
        check_port(settings.ship.host, settings.ship.port, flag="--ship-port")


async def _up(
    settings: Settings,
    folder: "DataFolder",
    *,
    resume: bool,
    first: bool,
    progress: "Progress",
    announce: Callable[[Welcome], None],
) -> int:
    from penstock.core.errors import PenstockError
    from penstock.supervisor.house import child_environment
    from penstock.supervisor.launcher import Endpoints, Launcher

    begun = time.monotonic()
    launcher = Launcher(
        folder,
        supervisor=(*program(), "supervise", "--data", settings.data),
        itself=(*program(), "up", "--data", settings.data, "--resume"),
        environment=child_environment(os.environ, settings),
        progress=progress,
        drain_bound_s=settings.gateway.drain_s + settings.engine.drain_s + 45.0,
        hang_s=settings.supervisor.hang_s,
    )
    launcher.start()
    if not resume:
        endpoints = Endpoints(
            gateway=_gateway_url(settings),
            control=f"http://{reachable(settings.control.host)}:{settings.control.port}",
        )
        try:
            if await launcher.ready(endpoints, first=first):
                announce(
                    Welcome(
                        gateway=endpoints.gateway,
                        console=endpoints.control,
                        data=settings.data,
                        admin_key_file=str(folder.admin_key),
                        grpc=f"{reachable(settings.gateway.host)}:{port}"
                        if (port := settings.gateway.grpc_port)
                        else "",
                        demo_key_file=str(folder.demo_key) if folder.demo_key.exists() else "",
                        pid=os.getpid(),
                        seconds=round(time.monotonic() - begun, 1),
                    )
                )
        except PenstockError:
            launcher.stop()
            await launcher.over()
            raise
    return await launcher.over()


def run_supervisor(settings: Settings) -> None:
    """`penstock supervise`, which `up` starts: keeps the processes of one data folder running until SIGTERM.

    Raises:
        Conflict: if the folder has a supervisor.
    """
    from penstock.supervisor.folder import DataFolder

    log_to_stdout()
    settings = resolved_for_up(settings)
    folder = DataFolder(Path(settings.data))
    folder.prepare()
    with folder.lock(folder.supervisor_lock_file, _LOCK_PATIENCE_S):
        asyncio.run(_supervise(settings, folder))


async def _supervise(settings: Settings, folder: "DataFolder", *, gateways_alone: bool = False) -> None:
    from penstock.net.server import Server
    from penstock.store.ledger_log import LedgerLog
    from penstock.store.ledger_socket import LedgerServer
    from penstock.supervisor.api import SupervisorApi
    from penstock.supervisor.house import House, child_environment, settings_environment
    from penstock.supervisor.keeper import Keeper
    from penstock.supervisor.logs import Logs
    from penstock.supervisor.records import Records
    from penstock.supervisor.supervisor import Supervisor
    from penstock.supervisor.values import fingerprint

    records, logs = Records(folder.run), Logs(folder.logs)
    house = House(
        program=program(),
        data=folder.root,
        settings=settings,
        environment=fingerprint(settings_environment(settings)),
    )
    supervisor = Supervisor(
        house,
        processes=tuple(house.gateways()) if gateways_alone else house.everything(),
        records=records,
        logs=logs,
        keeper=Keeper(records, logs, child_environment(os.environ, settings), hang_s=settings.supervisor.hang_s),
        services=(LedgerServer(folder.ledger_socket, clock=steady_clock(), log=LedgerLog(folder.ledger_file)),),
    )
    server = Server(SupervisorApi(supervisor))
    await server.start(unix=folder.supervisor_socket)
    await supervisor.run()
    await server.drain(1.0)


# -- one process each --------------------------------------------------------------------------------------------------


def _run(main: Coroutine[Any, Any, None]) -> None:
    import uvloop

    uvloop.run(main)


def steady_clock() -> Callable[[], float]:
    """Unix seconds that never go back while the process lives."""
    epoch = time.time() - time.monotonic()
    return lambda: epoch + time.monotonic()


def service_token(settings: Settings) -> str:
    """What processes show to control: the setting, or the text of DATA/service.token; "" if there is neither."""
    if settings.service_token:
        return settings.service_token
    try:
        return (Path(settings.data) / "service.token").read_text().strip()
    except FileNotFoundError:
        return ""


def _data_folder(settings: Settings) -> Path:
    from penstock.supervisor.place import settle

    data = Path(settings.data).absolute()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settle(data)
    except OSError as error:
        raise Unavailable(f"The data folder {data} cannot be made or used: {error.strerror}.", param="--data") from None
    return data


def run_gateway(settings: Settings, worker: int, *, supervised: bool) -> None:
    """One gateway worker, until SIGTERM. It shares the ledger of limits: Redis if that is set, else the supervisor's if there is one.

    Raises:
        PenstockError: if the address, the journal or the Snapshot cannot be had.
    """
    log_to_stdout()
    _run(_gateway(settings, f"gateway-{worker}", supervised=supervised))


async def _gateway(settings: Settings, worker: str, *, supervised: bool) -> None:
    from penstock.gateway.serve import serve_gateway
    from penstock.journal.keyring import open_keys
    from penstock.journal.offsets import shipped_before
    from penstock.journal.vault import Vault
    from penstock.journal.writer import Bounds, JournalWriter
    from penstock.store.ledger import LocalLedger
    from penstock.store.ledger_log import LedgerLog
    from penstock.store.ledger_socket import SocketLedger
    from penstock.store.limiter import Limiter
    from penstock.store.slate import Slate, boot_of_this_machine

    data = _data_folder(settings)
    loop = asyncio.get_running_loop()
    gateway = settings.gateway
    await _have_root(settings)
    keys = open_keys(settings)
    journal = JournalWriter.open(
        data / "journal" / worker,
        worker,
        loop=loop,
        clock=time.time,
        bounds=Bounds(segment_bytes=gateway.journal_segment_bytes, disk_bytes=gateway.journal_disk_bytes),
        shipped=lambda name: shipped_before(data / "ship", worker, name),
    )
    shared: SocketLedger | Shared | None = None
    answers: Answers | None = None
    session = f"{worker}/{os.getpid()}/{time.time()}"
    if gateway.redis_url:
        try:
            from penstock.store.cache_redis import RedisCache
            from penstock.store.ledger_redis import RedisLedger
        except ImportError:
            message = "gateway.redis_url needs the redis client: install penstock[redis]."
            raise Unavailable(message, param="gateway.redis_url") from None
        answers = RedisCache(gateway.redis_url, service_token(settings).encode())
        shared = RedisLedger(gateway.redis_url, f"{socket.gethostname()}/{session}", clock=time.monotonic)
    elif supervised:
        shared = SocketLedger(data / "ledger.sock", session, clock=time.monotonic)
    limiter = Limiter(
        shared or LocalLedger(LedgerLog(data / f"ledger-{worker}.log")),
        epoch=time.time() - time.monotonic(),
        down=gateway.ledger_down,
        workers=gateway.workers,
        slate=Slate(data / "gateway" / f"{worker}.slate", boot_of_this_machine()),
    )
    if shared is not None:
        shared.seats = limiter.book.seats
        await shared.start()
    limiter.start(loop, time.monotonic)
    try:
        await serve_gateway(
            settings=gateway,
            data=data,
            worker=worker,
            journal=journal,
            limiter=limiter,
            service_token=service_token(settings),
            subject_key=keys.hash_key,
            shared=answers,
            vault=Vault(keys),
        )
    finally:
        limiter.close(time.monotonic())
        if answers is not None:
            await answers.close()
        if shared is not None:
            await shared.close()
        journal.close()
        keys.close()


async def _have_root(settings: Settings) -> None:
    """Has the root of all hosts' keys here, if they share them; control's own machine makes it."""
    if not settings.keys.shared:
        return
    from penstock.journal.key_control import borrow_root
    from penstock.journal.keyring import keys_folder

    url = settings.gateway.control_url or settings.ship.control_url
    if not url:
        raise BadRequest("keys.shared needs control: give --control-url.", param="--control-url")
    await borrow_root(keys_folder(settings), url, service_token(settings))


def has_grpc() -> bool:
    """Whether the extra `grpc` is installed, and the code of its messages was made."""
    return bool(find_spec("grpc") and find_spec("google.protobuf") and find_spec("penstock.gateway.grpc.inference_pb2"))


def run_grpc(settings: Settings) -> None:
    """The gRPC server in front of the gateway workers of one data folder, until SIGTERM.

    Raises:
        Unavailable: if gRPC is not installed, or the address cannot be had.
    """
    log_to_stdout()
    if not has_grpc():
        raise Unavailable(
            "gRPC is not installed.",
            hint="pip install 'penstock[grpc]'; in a source tree, `make install` makes its messages.",
        )
    from penstock.gateway.grpc.serve import serve_grpc

    _run(serve_grpc(settings=settings.gateway, data=_data_folder(settings)))


def run_gateways(settings: Settings) -> None:
    """Several gateway workers on one port, and the ledger that they share, until SIGTERM.

    Raises:
        Conflict: if the data folder or the port is in use.
    """
    from penstock.gateway.edge import read_certificate
    from penstock.journal.keyring import open_keys
    from penstock.supervisor.folder import DataFolder
    from penstock.supervisor.ports import check_port

    log_to_stdout()
    folder = DataFolder(Path(settings.data))
    folder.prepare()
    with folder.lock(folder.lock_file):
        read_certificate(settings.gateway)
        asyncio.run(_have_root(settings))
        open_keys(settings).close()
        check_port(settings.gateway.host, settings.gateway.port, flag="--gateway-port")
        asyncio.run(_supervise(settings, folder, gateways_alone=True))


def run_engine(
    settings: Settings,
    directory: str,
    model: str | None,
    *,
    provenance: str | None = None,
    trusted: Sequence[str] = (),
) -> None:
    """One embedded engine, until SIGTERM. With `provenance` it loads only what one of the `trusted` keys has signed, or the version whose digest is.

    Raises:
        PenstockError: if the model cannot be loaded or the address cannot be had.
    """
    from penstock.core.digests import is_digest
    from penstock.engine.provenance import verify_build
    from penstock.engine.serve import serve_engine

    def started(url: str) -> None:
        logging.getLogger("penstock.engine").info("answers at %s", url)

    log_to_stdout()
    if provenance is not None:
        keys = [text for text in trusted if not is_digest(text)]
        expected = next((text for text in trusted if is_digest(text)), None)
        digest = verify_build(Path(directory), Path(provenance), keys, expected=expected)
        logging.getLogger("penstock.engine").info("every byte is of %s%s", digest, ", which was signed" if keys else "")
    signed = provenance is not None and any(not is_digest(text) for text in trusted)
    _run(
        serve_engine(
            directory=Path(directory).absolute(), model=model, settings=settings.engine, started=started, signed=signed
        )
    )


def run_examiner(settings: Settings) -> None:
    """The examiner of one data folder, until SIGTERM: it evaluates versions beside control, nice to what serves.

    Raises:
        BadRequest: if it is not said where control is.
    """
    log_to_stdout()
    if not settings.ship.control_url:
        raise BadRequest("The examiner must know where control is: give --control-url.", param="--control-url")
    os.nice(_EXAMINER_NICE)
    asyncio.run(_examiner(settings))


async def _examiner(settings: Settings) -> None:
    import httpx

    from penstock.examiner.desk import Desk
    from penstock.examiner.examiner import Examiner
    from penstock.examiner.harness import HarnessRunner
    from penstock.net.pulse import Pulse

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    headers = {"authorization": f"Bearer {service_token(settings)}"}
    # The same name after a kill: what was under way is gone on with at once.
    holder = f"{socket.gethostname()[:40]}:{_data_folder(settings)}"[-160:]
    pulse = Pulse(_data_folder(settings) / "run" / "examiner.pulse")
    await pulse.start()
    async with httpx.AsyncClient(
        base_url=settings.ship.control_url, headers=headers, timeout=60.0, trust_env=False
    ) as client:
        harness = HarnessRunner(settings.examiner.lm_eval, _data_folder(settings) / "toolchains")
        await Examiner(Desk(client, holder), settings.engine, harness).run(stop)
    await pulse.stop()


def starter_folder(settings: Settings) -> Path | None:
    """Where the starter versions are: the setting, or those of the source tree; None to begin without any.

    Raises:
        BadRequest: if the setting names no folder.
    """
    if settings.empty:
        return None
    if settings.starter:
        folder = Path(settings.starter)
        if not folder.is_dir():
            raise BadRequest(
                f"There is no folder of starter models at {folder}; PENSTOCK_STARTER names it, and --empty goes without.",
                param="starter",
            )
        return folder
    folder = Path(__file__).parents[2] / "examples" / "support_bot" / "models"
    return folder if folder.is_dir() else None


def run_control(settings: Settings) -> None:
    """The control plane with its console, until SIGTERM. Replicas run under the supervisor, if there is one.

    Raises:
        PenstockError: if the database, the blobs or the address cannot be had, or the first start fails.
    """
    from penstock.supervisor.folder import DataFolder

    log_to_stdout()
    folder = DataFolder(Path(settings.data))
    folder.prepare()
    _run(_control(settings, folder))


async def _control(settings: Settings, folder: "DataFolder") -> None:
    import httpx

    from penstock.control.serve import serve_control
    from penstock.journal.keyring import open_keys
    from penstock.runtime.local import LocalRuntime
    from penstock.supervisor.health import unverified
    from penstock.supervisor.look import look

    def started(url: str) -> None:
        logging.getLogger("penstock.control").info("answers at %s", url)

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises a signal that it was stopped by once more when it has drained: here that ends nothing.
        signal.signal(number, _already_told)
    keys = open_keys(settings)
    runtime = LocalRuntime(folder.supervisor_socket) if folder.supervisor_socket.exists() else None
    gateway_url = _gateway_url(settings)
    async with httpx.AsyncClient(base_url=gateway_url, timeout=120.0, verify=unverified()) as gateway:
        await serve_control(
            settings=settings,
            data=folder.root,
            service_token=service_token(settings),
            keys=keys,
            gateway=gateway,
            runtime=runtime,
            processes=runtime,
            starter=starter_folder(settings),
            clock=time.time,
            extend=partial(_mount_console, gateway=gateway, gateway_url=gateway_url, demo_key=folder.demo_key),
            look=(lambda window_s: look(settings, time.time(), window_s)) if runtime is not None else None,
            started=started,
        )
    keys.close()
    if runtime is not None:
        await runtime.close()


def _already_told(_number: int, _frame: object) -> None:
    """What is left to do for a signal that has been followed."""


def _mount_console(
    app: "FastAPI", control: "Control", *, gateway: "httpx.AsyncClient", gateway_url: str, demo_key: Path
) -> None:
    import httpx

    from penstock.console.app import build_console
    from penstock.control.logins import CONSOLE

    def playground_key() -> str | None:
        return demo_key.read_text().strip() if demo_key.exists() else None

    app.mount(
        "/",
        build_console(
            api=httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app, client=(CONSOLE, 0)), base_url="http://control"
            ),
            gateway=gateway,
            gateway_url=gateway_url,
            # Sessions outlive a restart of control, and end with the service token.
            secret=hashlib.sha256(b"console sessions\0" + control.service_token.encode()).digest(),
            playground_key=playground_key,
        ),
    )


def run_ship(settings: Settings) -> None:
    """The shipper, until SIGTERM; then it passes on what is left, for a bounded time.

    Raises:
        BadRequest: if it is not said where control is.
        Unavailable: if its port cannot be had.
    """
    log_to_stdout()
    if not settings.ship.control_url:
        raise BadRequest("The shipper must know where control is: give --control-url.", param="--control-url")
    _run(_ship(settings))


def _host_collectors(data: Path) -> "list[Collector]":
    """What tells of the machine, and of what was probed on it: of each there is one shipper."""
    from penstock.engine.probe.records import ProbeCollector
    from penstock.runtime.gpus import GpuCollector, find_nvml
    from penstock.runtime.host import HostCollector

    nvml = find_nvml()
    host = HostCollector({"data": data})
    probes = ProbeCollector(data / "probes")
    return [host, probes] if nvml is None else [host, probes, GpuCollector(nvml)]


async def _ship(settings: Settings) -> None:
    from penstock.journal.analytics.asking import RetentionAsker
    from penstock.journal.elastic import ElasticSink
    from penstock.journal.event_carrier import ControlEvents, EventCarrier
    from penstock.journal.lines import LinesSink
    from penstock.journal.offsets import keep_readers
    from penstock.journal.serve import serve_ship
    from penstock.journal.ship import ControlSink, Shipper

    data = _data_folder(settings)
    loop = asyncio.get_running_loop()
    told, stop = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    control = ControlSink(
        settings.ship.control_url, service_token(settings), journal=data / "journal", offsets=data / "ship"
    )
    sinks: list[Sink] = [control, *_sinks(settings.ship, data)]
    parquet = _parquet_sink(settings)
    if parquet is not None:
        sinks.append(parquet)
    for gone in keep_readers(data / "ship", [sink.name for sink in sinks]):
        logging.getLogger("penstock.ship").warning("%s: has no sink any more, and holds the journal no longer", gone)
    pauses = {
        "parquet": settings.analytics.flush_s
    }  # what is not in a file yet waits in the journal, also over a restart
    shippers = [
        Shipper(
            sink,
            data / "journal",
            data / "ship",
            poll_s=pauses.get(sink.name, settings.ship.poll_s),
            heard=control.heard if sink is control else None,
        )
        for sink in sinks
    ]

    async def drain() -> None:
        await told.wait()
        for _ in range(round(_FLUSH_S / settings.ship.poll_s)):
            if not any(shipper.lag() for shipper in shippers if shipper.name not in pauses):
                break
            await asyncio.sleep(settings.ship.poll_s)
        stop.set()

    asker = RetentionAsker(settings.ship.control_url, service_token(settings))
    events = ControlEvents(settings.ship.control_url, service_token(settings))
    carriers = [
        EventCarrier(sink, events, data / "ship")
        for sink in sinks
        if settings.ship.events and isinstance(sink, ElasticSink | LinesSink)
    ]
    beside = [asyncio.create_task(drain())]
    if settings.keys.shared:
        beside.append(asyncio.create_task(_exchange_keys(settings)))
    if parquet is not None:
        beside.append(asyncio.create_task(parquet.keep(asker.ask, settings.analytics.upkeep_s)))
    also = [*_host_collectors(data), *([] if parquet is None else [parquet])]
    try:
        await serve_ship(
            shippers, also=also, carriers=carriers, host=settings.ship.host, port=settings.ship.port, stop=stop
        )
    except OSError as error:
        raise Unavailable(
            f"The shipper cannot listen on {settings.ship.host}:{settings.ship.port}: {error.strerror or error}.",
            hint="Choose another port with --ship-port.",
        ) from None
    finally:
        for task in beside:
            task.cancel()
        for sink in sinks:
            await sink.close()
        await asker.close()
        await events.close()


async def _exchange_keys(settings: Settings) -> None:
    """The host's part in shared keys, until cancelled."""
    from penstock.core.errors import PenstockError
    from penstock.journal.key_control import ControlKeys
    from penstock.journal.key_exchange import EVERY_S, KeyExchange
    from penstock.journal.keyring import open_keys

    while True:
        try:
            await _have_root(settings)
            keys = open_keys(settings, make=False)
            break
        except PenstockError as error:
            logging.getLogger("penstock.ship").warning("keys: %s", error.message)
            await asyncio.sleep(EVERY_S)
    control = ControlKeys(settings.ship.control_url, service_token(settings))
    try:
        await KeyExchange(keys, control, socket.gethostname()).run()
    finally:
        await control.close()
        keys.close()


def analytics_folder(settings: Settings) -> Path:
    """Where the analytical store is, whether there is one or not."""
    return Path(settings.analytics.folder or Path(settings.data) / "analytics").absolute()


def _parquet_sink(settings: Settings) -> "ParquetSink | None":
    if not settings.analytics.enabled or not find_spec("duckdb"):
        return None
    from penstock.journal.analytics.sink import ParquetSink

    return ParquetSink(analytics_folder(settings), clock=time.time, disk_bytes=settings.analytics.disk_bytes)


def _sinks(ship: ShipSettings, data: Path) -> "list[Sink]":
    """Where records go beside control."""
    from penstock.journal.refusals import DeadLetters
    from penstock.journal.sampling import Sampling
    from penstock.journal.traces import TraceSink

    def dead(name: str) -> DeadLetters:
        return DeadLetters(data / "dead-letters" / f"{name}.ndjson")

    sampling = Sampling(share=ship.trace_share, slow_s=ship.slow_s)
    sinks: list[Sink] = []
    if ship.otlp_url:
        sinks.append(TraceSink(_collector(ship), sampling, dead("otlp")))
    if ship.zipkin_url:
        from penstock.journal.zipkin import Zipkin

        sinks.append(TraceSink(Zipkin(ship.zipkin_url), sampling, dead("zipkin")))
    if ship.stdout:
        from penstock.journal.lines import LinesSink

        sinks.append(LinesSink(sys.stdout.buffer, slow_s=ship.slow_s))
    if ship.elasticsearch_url:
        from penstock.journal.elastic import ElasticSink

        sinks.append(
            ElasticSink(
                ship.elasticsearch_url,
                dead("elasticsearch"),
                api_key=ship.elasticsearch_api_key,
                retention_days=ship.elasticsearch_retention_days,
                slow_s=ship.slow_s,
            )
        )
    return sinks


def _collector(ship: ShipSettings) -> "Carrier":
    from penstock.journal.posting import parse_headers

    headers = parse_headers(ship.otlp_headers)
    try:
        if ship.otlp_url.startswith("grpc"):
            from penstock.journal.otlp_grpc import OtlpGrpc

            return OtlpGrpc(ship.otlp_url, headers)
        from penstock.journal.otlp import OtlpHttp

        return OtlpHttp(ship.otlp_url, headers)
    except ImportError as error:
        raise BadRequest(
            f"Traces by OTLP need a package that is not there ({error.name}).",
            param="ship.otlp_url",
            hint="Install penstock[otlp].",
        ) from None
