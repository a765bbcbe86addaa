"""`penstock doctor`: a first look at what may be wrong with the installation on this machine."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import size
from penstock.core.errors import PenstockError, Unavailable

if TYPE_CHECKING:
    from penstock.supervisor.values import ProcessStatus

State = Literal["ok", "warning", "wrong"]
Finding = dict[str, str]

_LOW_BYTES = 1 << 30
_LAG_BYTES = 4 << 20
_QUIET_S = 30.0
_RENEWAL_DAYS = 14
_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}


@click.command()
@with_session
def doctor(session: Session) -> int:
    """Look at processes, ports, disk, Snapshots, the shipper and what failed last. Exit status 1 if something is wrong."""
    findings = list(_findings(session))
    wrong = any(finding["state"] == "wrong" for finding in findings)

    def people() -> None:
        for finding in findings:
            colour = _COLOURS[finding["state"]]
            session.console.print(f"[{colour}]{finding['state']:8}[/]{finding['about']}: ", end="")
            session.console.print(finding["text"], markup=False)

    session.answer({"healthy": not wrong, "findings": findings}, people)
    return 1 if wrong else 0


def _finding(about: str, state: State, text: str) -> Finding:
    return {"about": about, "state": state, "text": text}


def _findings(session: Session) -> Iterator[Finding]:
    from penstock.supervisor.folder import DataFolder

    folder = DataFolder(Path(session.settings.data))
    if not folder.root.is_dir():
        yield _finding(
            "data folder", "wrong", f"{folder.root} is not there; 'penstock up' makes it, --data names another."
        )
        return
    yield from _disk(folder.root)
    yield from _secrets(folder)
    try:
        found = asyncio.run(_processes(folder.supervisor_socket))
    except Unavailable as error:
        yield _finding("supervisor", "wrong", f"{error.message} Is 'penstock up' running?")
        return
    for process in found:
        yield _process(process)
    yield from asyncio.run(_answers(session, found))
    yield from _control(session)


async def _processes(socket: Path) -> "list[ProcessStatus]":
    from penstock.supervisor.query import processes

    return await processes(socket)


def _disk(root: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(root)
    text = f"{size(usage.free)} of {size(usage.total)} free at {root}."
    yield _finding("disk", "warning" if usage.free < _LOW_BYTES else "ok", text)


def _secrets(folder: Any) -> Iterator[Finding]:
    for path in (folder.admin_key, folder.demo_key, folder.service_token):
        if path.exists() and path.stat().st_mode & 0o077:
            yield _finding("secrets", "warning", f"{path} can be read by others than its owner; 'chmod 600 {path}'.")


def _process(process: "ProcessStatus") -> Finding:
    text = f"{process.state}, pid {process.pid}" + (f", port {process.port}" if process.port else "")
    if process.restarts:
        text += f", started again {process.restarts} times"
    if process.last_exit:
        text += f", last end: {process.last_exit}"
    state: State = (
        "wrong" if process.state == "failed" or not process.pid else "warning" if process.streak > 1 else "ok"
    )
    return _finding(process.name, state, text + ".")


async def _answers(session: Session, processes: "list[ProcessStatus]") -> list[Finding]:
    from penstock.supervisor.health import status_of
    from penstock.supervisor.ports import reachable

    gateway = session.settings.gateway
    urls = {process.kind: process.url for process in processes if process.url and process.kind != "engine"}
    ports = {process.port for process in processes if process.kind == "gateway"}
    found: list[Finding] = []
    for port in ports:
        plain, sealed = (f"{scheme}://{reachable(gateway.host)}:{port}" for scheme in ("http", "https"))
        speaks_plain = await status_of(f"{plain}/healthz") == 200 or not await status_of(f"{sealed}/healthz")
        urls["gateway"] = plain if speaks_plain else sealed
        if not speaks_plain:
            found.append(_certificate(await asyncio.to_thread(_expiry, reachable(gateway.host), port)))
    for kind, url in sorted(urls.items()):
        status = await status_of(f"{url}/readyz")
        state: State = "ok" if status == 200 else "wrong"
        found.append(_finding(f"{kind} /readyz", state, f"{url} answers {status or 'nothing'}."))
    return found


def _expiry(host: str, port: int) -> float:
    """When the certificate that is shown there ends, in Unix seconds."""
    import ssl

    from cryptography import x509

    shown = ssl.get_server_certificate((host, port), timeout=5.0)
    return x509.load_pem_x509_certificate(shown.encode()).not_valid_after_utc.timestamp()


def _certificate(expires: float) -> Finding:
    days = (expires - time.time()) / 86400
    text = f"it ends in {days:.0f} days" if days > 0 else "it has ended"
    state: State = "ok" if days > _RENEWAL_DAYS else "warning" if days > 0 else "wrong"
    return _finding("gateway certificate", state, f"{text}; a new file is taken as soon as it is there.")


def _control(session: Session) -> Iterator[Finding]:
    try:
        heard = session.api.get("/gateways")
        failing = session.api.get("/conditions")
    except PenstockError as error:
        yield _finding("control API", "wrong", error.message)
        return
    for one in heard["gateways"]:
        yield from gateway_findings(one, heard["generation"], time.time())
    if not heard["gateways"]:
        yield _finding("snapshot", "warning", "No gateway has told which Snapshot it has.")
    yield from _shipper(session)
    for one in failing:
        yield _finding(one["subject"], "warning", f"failed {one['failures']} times, last: {one['message']}")


def gateway_findings(one: dict[str, Any], newest: int, now: float) -> Iterator[Finding]:
    """What a worker serves from, and what it refuses of it."""
    who = f"{one['worker']} on {one['host']}" if one["host"] else one["worker"]
    behind = one["generation"] != newest
    quiet = now - one["at"]
    text = f"{who} has Snapshot {one['generation']} of {newest}, heard of {quiet:.0f} s ago."
    yield _finding("snapshot", "warning" if behind or quiet > _QUIET_S else "ok", text)
    if one["refused"]:
        yield _finding("snapshot", "wrong", f"{who} refused the newest Snapshot: {one['refused']}")
    for fault in one["faults"]:
        yield _finding("snapshot", "wrong", f"{who} refuses the {fault['kind']} {fault['name']}: {fault['why']}")
    untold = one["fault_count"] - len(one["faults"])
    if untold > 0:
        yield _finding("snapshot", "wrong", f"{who} refuses {untold} entries more.")


def _shipper(session: Session) -> Iterator[Finding]:
    import httpx

    ship = session.settings.ship
    port = next((p.port for p in asyncio.run(_processes(_socket(session))) if p.kind == "ship"), ship.port)
    try:
        readers = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2.0).json()["readers"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        yield _finding("shipper", "wrong", f"it does not tell how far it is ({type(error).__name__}).")
        return
    for name, reader in readers.items():
        state: State = "warning" if reader["problem"] or reader["lag_bytes"] > _LAG_BYTES else "ok"
        text = f"{name} is {size(reader['lag_bytes'])} behind."
        if reader.get("dead_letters"):
            state = "warning"
            text += f" Its sink refused {reader['dead_letters']} records for good: see dead-letters/{name}.ndjson."
        yield _finding("shipper", state, text + (f" {reader['problem']}" if reader["problem"] else ""))


def _socket(session: Session) -> Path:
    return Path(session.settings.data).absolute() / "supervisor.sock"
