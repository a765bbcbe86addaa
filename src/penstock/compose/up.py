"""Everything on one machine: the launcher, and the supervisor that it starts."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penstock.compose.grpc import has_grpc
from penstock.compose.process import log_to_stdout, steady_clock
from penstock.compose.settings import gateway_url, starter_folder
from penstock.core.settings import Settings
from penstock.supervisor.ports import reachable

if TYPE_CHECKING:
    from penstock.supervisor.folder import DataFolder
    from penstock.supervisor.launcher import Progress

_LOCK_PATIENCE_S = 5.0


def program() -> tuple[str, ...]:
    """The command line of `penstock` itself, whatever the working folder holds."""
    return (sys.executable, "-P", "-m", "penstock.cli")


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
            gateway=gateway_url(settings),
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
        asyncio.run(supervise(settings, folder))


async def supervise(settings: Settings, folder: "DataFolder", *, gateways_alone: bool = False) -> None:
    """Keep the processes of `folder` running, and its ledger of limits open, until SIGTERM; its lock must be held."""
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
