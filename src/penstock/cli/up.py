"""`penstock up`."""

import contextlib
import json
import shlex
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from penstock.cli.flags import PORT, data_flag, json_flag, tls_certificate_flag, tls_key_flag
from penstock.compose.settings import read_settings
from penstock.compose.up import Welcome, run_up


class Steps:
    """One line a step, with its seconds; on a terminal the current step shows a spinner."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = ""
        self._begun = 0.0
        self._spinner: Status | None = None

    def begin(self, step: str) -> None:
        """A step that takes time has begun; the one before is done."""
        self.end()
        self._step, self._begun = step, time.monotonic()
        if self._console.is_terminal:
            self._spinner = self._console.status(f"{step} ...")
            self._spinner.start()

    def end(self) -> None:
        """The last step is done."""
        self._rest()
        if self._step:
            seconds = time.monotonic() - self._begun
            self._console.print(f"  [green]done[/] {self._step} [dim]{seconds:.1f} s[/]", highlight=False)
            self._console.file.flush()  # a log that is read while it grows
            self._step = ""

    def detail(self, text: str) -> None:
        """What the step is at."""
        if self._spinner is not None:
            seconds = time.monotonic() - self._begun
            self._spinner.update(f"{self._step} [dim]{seconds:.0f} s {escape(text)}[/]")

    def note(self, text: str) -> None:
        """Something that people should know."""
        self._rest()
        self._console.print(f"  [yellow]note[/] {escape(text)}", highlight=False)
        self._console.file.flush()

    def _rest(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class Silence:
    """For programs, which read the JSON document alone, and for a launcher that nobody sees."""

    def begin(self, step: str) -> None:
        """Says nothing."""

    def end(self) -> None:
        """Says nothing."""

    def detail(self, text: str) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""


def curl_line(welcome: Welcome) -> str:
    """A line to copy that asks the demo tenant's question."""
    key = (
        shlex.quote(shown_path(welcome.demo_key_file))
        if " " in welcome.demo_key_file
        else shown_path(welcome.demo_key_file)
    )
    body = '{"model":"support-bot","messages":[{"role":"user","content":"Where is my order 4471902?"}]}'
    return (
        f'curl -s {welcome.gateway}/v1/chat/completions -H "Authorization: Bearer $(cat {key})" '
        f"-H \"Content-Type: application/json\" -d '{body}'"
    )


def shown_path(path: str) -> str:
    """`path` from the working folder, if it is below it."""
    with contextlib.suppress(ValueError):
        return f"./{Path(path).relative_to(Path.cwd())}"
    return path


def _announce(console: Console, welcome: Welcome) -> None:
    console.print()
    console.print(f"  Penstock is ready after {welcome.seconds} s (pid {welcome.pid}).", highlight=False)
    console.print(f"  Gateway   {welcome.gateway}", highlight=False)
    if welcome.grpc:
        console.print(f"  gRPC      {welcome.grpc}", highlight=False)
    console.print(
        f"  Console   {welcome.console}   sign in with the key in {shown_path(welcome.admin_key_file)}", highlight=False
    )
    console.print(f"  Logs      {shown_path(welcome.data)}/logs", highlight=False)
    if welcome.demo_key_file:
        console.print("\n  Ask it something:\n", highlight=False)
        sys.stdout.write(curl_line(welcome) + "\n\n")
    console.print("  Ctrl-C drains and stops everything.", highlight=False)
    sys.stdout.flush()


@click.command()
@data_flag
@click.option("--host", help="Address that gateway and control listen on [default: 127.0.0.1].")
@click.option("--gateway-port", type=PORT, help="Port of the OpenAI API [default: 8080].")
@click.option("--control-port", type=PORT, help="Port of the console and the control API [default: 8081].")
@click.option("--engine-ports", type=PORT, metavar="FROM", help="First port for engine replicas [default: 8090].")
@click.option("--ship-port", type=PORT, help="Port of the shipper's metrics [default: 8083].")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Port of gRPC; 0: none [default: 8082].")
@click.option("--workers", type=click.IntRange(1, 256), help="Gateway processes that share the port [default: 1].")
@tls_certificate_flag
@tls_key_flag
@click.option("--empty", is_flag=True, default=None, help="Register no starter models at the first start.")
@click.option("--resume", is_flag=True, hidden=True)
@json_flag
def up(
    *,
    data: str | None,
    host: str | None,
    gateway_port: int | None,
    control_port: int | None,
    engine_ports: int | None,
    ship_port: int | None,
    grpc_port: int | None,
    workers: int | None,
    tls_certificate: str | None,
    tls_key: str | None,
    empty: bool | None,
    resume: bool,
    as_json: bool,
) -> int:
    """Run everything on this machine, in the foreground, until Ctrl-C.

    The first start registers the starter models, creates the tenant `demo` and writes `admin.key` and `demo.key` into the
    data folder; later starts resume. It is ready when it prints the addresses. Ctrl-C lets what is being answered finish; a
    second one ends everything at once.
    """
    settings = read_settings(
        {
            "data": data,
            "empty": empty,
            "gateway.host": host,
            "control.host": host,
            "gateway.port": gateway_port,
            "control.port": control_port,
            "engine.port": engine_ports,
            "ship.port": ship_port,
            "gateway.workers": workers,
            "gateway.tls_certificate": tls_certificate,
            "gateway.tls_key": tls_key,
            "gateway.grpc_port": grpc_port,
        }
    )
    if as_json or resume:

        def tell(welcome: Welcome) -> None:
            print(json.dumps({f: getattr(welcome, f) for f in welcome.__struct_fields__}), flush=True)

        return run_up(settings, resume=resume, progress=Silence(), announce=tell)
    console = Console(soft_wrap=True)
    console.print(f"Penstock in {shown_path(str(Path(settings.data).absolute()))}", highlight=False)
    return run_up(settings, resume=False, progress=Steps(console), announce=lambda welcome: _announce(console, welcome))
