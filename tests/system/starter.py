"""`penstock up` with the starter models, as a user starts it: real processes, real model."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.ports import free_ports

ROOT = Path(__file__).parents[2]


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """A running installation."""

    gateway: str
    control: str
    grpc: str
    data: Path
    pid: int
    seconds: float

    def secret(self, name: str) -> str:
        """The text of `admin.key` or `demo.key`."""
        return (self.data / name).read_text().strip()


def command(data: Path, *more: str) -> list[str]:
    """The command line of `penstock up` on free ports."""
    gateway, control, ship, grpc, engines = free_ports(5)
    return [
        sys.executable, "-P", "-m", "penstock.cli", "up", "--json", "--data", str(data),
        "--gateway-port", str(gateway), "--control-port", str(control), "--ship-port", str(ship), "--grpc-port", str(grpc),
        "--engine-ports", str(engines), *more,
    ]  # fmt: skip


def first_line(process: subprocess.Popen[bytes], deadline_s: float) -> dict[str, Any]:
    """The JSON document that a process prints first.

    Raises:
        AssertionError: if it ends, or prints nothing in time.
    """
    assert process.stdout is not None
    end = time.monotonic() + deadline_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < end:
            if selector.select(0.5):
                line = process.stdout.readline()
                if line:
                    found: dict[str, Any] = json.loads(line)
                    return found
            if process.poll() is not None:
                raise AssertionError(f"`penstock up` ended with {process.returncode}")
    raise AssertionError(f"`penstock up` was not ready after {deadline_s} s")


@contextmanager
def running(
    data: Path, *flags: str, deadline_s: float = 150.0, first: Path | None = None, hang_s: float = 600.0
) -> Iterator[Up]:
    """An installation in `data`, drained and gone when the block ends; its processes look for modules in `first` before all else.

    Processes that say nothing are replaced after `hang_s`: on a busy machine, and where tests stop some, much later than elsewhere.
    """
    starter = os.environ.get("PENSTOCK_STARTER", str(ROOT / "examples/support_bot/models"))
    env = {
        **os.environ,
        "PENSTOCK_STARTER": starter,
        "PENSTOCK_SUPERVISOR_HANG_S": str(hang_s),
        "PENSTOCK_ENGINE_HANG_S": str(hang_s),
        "PYTHONPATH": os.pathsep.join(map(str, (*([first] if first else ()), ROOT / "src"))),
    }
    process = subprocess.Popen(command(data, *flags), stdout=subprocess.PIPE, env=env, cwd=data.parent)
    try:
        told = first_line(process, deadline_s)
        yield Up(
            gateway=told["gateway"],
            control=told["console"],
            grpc=told["grpc"],
            data=data,
            pid=process.pid,
            seconds=told["seconds"],
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
