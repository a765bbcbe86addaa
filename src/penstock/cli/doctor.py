"""`penstock doctor`: what is wrong with the installation, in order of likelihood, with evidence and the next command."""

import asyncio
import time
from pathlib import Path

import click
import msgspec

from penstock.cli.session import Session, with_session
from penstock.core.errors import PenstockError
from penstock.diagnosis.cause import Cause
from penstock.diagnosis.diagnose import diagnose, healthy
from penstock.diagnosis.seen import Machine, Plane, Seen
from penstock.diagnosis.traffic import WINDOW_S

_COLOURS = {"warning": "yellow", "wrong": "red"}
_PATIENCE_S = 5.0


class _Told(msgspec.Struct):
    """What control answers, as far as it is read."""

    seen: Seen


@click.command()
@click.option("--all", "everything", is_flag=True, help="Tell what was looked at, too.")
@click.option(
    "--window",
    "window_s",
    type=click.FloatRange(1, 3600),
    default=WINDOW_S,
    show_default=True,
    help="Of requests, look at those of so many seconds.",
)
@with_session
def doctor(session: Session, *, everything: bool, window_s: float) -> int:
    """Say what is wrong, the most likely cause first, each with its evidence and the next step. Exit status 1 if something is.

    Looks at processes, disks, journals, sinks, replicas, queues, limits, Snapshots, certificates and the requests of the last
    minutes: on this machine, beside --data, and by what control knows. With --url alone control looks at its own machine.
    """
    seen = _look(session, window_s)
    causes = diagnose(seen)
    well = healthy(causes)
    document = {"healthy": well, "causes": msgspec.to_builtins(causes), "seen": msgspec.to_builtins(seen)}
    session.answer(document, lambda: _show(session, seen, causes, everything=everything))
    return 0 if well else 1


def _look(session: Session, window_s: float) -> Seen:
    from penstock.cli.client import Api, find_key, find_url
    from penstock.supervisor.look import look

    now = time.time()
    settings = session.settings
    here = Path(settings.data).is_dir()
    machine: Machine | None = None
    if here or not settings.url:
        machine = asyncio.run(look(settings, now, window_s))
    plane: Plane | None = None
    unasked = ""
    if machine is None or not machine.missing:
        try:
            url = find_url(settings)
            with Api(url, find_key(settings, url), patience_s=_PATIENCE_S) as api:
                heard = msgspec.convert(api.get("/diagnosis", machine=not here, window_s=window_s), _Told).seen
            plane, machine = heard.plane, machine or heard.machine
        except PenstockError as error:
            unasked = error.message
        except msgspec.ValidationError as error:
            unasked = f"Control answers in another version's words: {error}."
    return Seen(at=now, machine=machine, plane=plane, unasked=unasked)


def _show(session: Session, seen: Seen, causes: list[Cause], *, everything: bool) -> None:
    console = session.console
    if not causes:
        console.print("[green]Nothing is wrong[/] as far as can be seen.")
    for number, cause in enumerate(causes, 1):
        console.print(f"[bold]{number}.[/] [{_COLOURS[cause.state]}]{cause.state}[/] ", end="")
        console.print(cause.says, markup=False)
        if cause.follows:
            console.print(f"   follows from: {cause.follows}", markup=False)
        for line in cause.evidence:
            console.print(f"   seen: {line}", markup=False)
        if cause.command:
            console.print(f"   next: {cause.command}", markup=False)
        if cause.runbook:
            console.print(f"   more: docs/{cause.runbook}", markup=False)
    if everything:
        console.print()
        for line in looked_at(seen):
            console.print(line, markup=False)


def looked_at(seen: Seen) -> list[str]:
    """A line for each thing that was looked at."""
    lines: list[str] = []
    if seen.machine is not None:
        lines += [_program_line(one.name, one.state, one.pid, one.status) for one in seen.machine.programs]
        lines += [f"disk {one.path}: {one.free} bytes free" for one in seen.machine.disks]
        lines += [f"reader {one.name}: {one.lag_bytes} bytes behind" for one in seen.machine.readers]
        lines += [f"journal {one.worker}: {one.bytes} bytes, {one.lost} records lost" for one in seen.machine.journals]
        lines += [f"replica {one.pool} {one.id}: {one.dialled or 'answers'}" for one in seen.machine.replicas]
    if seen.plane is not None:
        lines += [f"worker {one.worker}: generation {one.generation}" for one in seen.plane.workers]
    count = sum(one.count for one in seen.traffic.groups)
    lines.append(f"requests of the last {seen.traffic.window_s:.0f} s: {count}")
    return lines


def _program_line(name: str, state: str, pid: int, status: int) -> str:
    told = "" if status < 0 else f", /readyz {status or 'no answer'}"
    return f"process {name}: {state}, pid {pid or '-'}{told}"
