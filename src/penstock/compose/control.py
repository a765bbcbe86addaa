"""The control plane, with the console on top of it."""

import hashlib
import logging
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.compose.process import log_to_stdout, run
from penstock.compose.settings import gateway_url, service_token, starter_folder
from penstock.core.settings import Settings

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from penstock.control.context import Control
    from penstock.supervisor.folder import DataFolder


def run_control(settings: Settings) -> None:
    """The control plane with its console, until SIGTERM. Replicas run under the supervisor, if there is one.

    Raises:
        PenstockError: if the database, the blobs or the address cannot be had, or the first start fails.
    """
    from penstock.supervisor.folder import DataFolder

    log_to_stdout()
    folder = DataFolder(Path(settings.data))
    folder.prepare()
    run(_control(settings, folder))


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
    url = gateway_url(settings)
    async with httpx.AsyncClient(base_url=url, timeout=120.0, verify=unverified()) as gateway:
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
            extend=partial(_mount_console, gateway=gateway, gateway_url=url, demo_key=folder.demo_key),
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
