"""`penstock up` and its supervisor as real processes, with small servers in place of what they run."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.runtime.port import ReplicaSpec
from penstock.supervisor.procfs import Handle
from penstock.supervisor.records import Records
from penstock.supervisor.values import RunRecord
from tests.ports import free_ports

pytestmark = pytest.mark.system

STUB = str(Path(__file__).with_name("stub.py"))
PATIENCE_S = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Up:
    """One `penstock up` on a folder of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.ports = free_ports(5)
        self.records: Records | None = None
        self.process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> subprocess.Popen[str]:
        gateway, control, ship, engine, grpc = map(str, self.ports)
        self.process = subprocess.Popen(
            [
                sys.executable, STUB, "up", "--data", str(self.data), "--gateway-port", gateway, "--control-port", control,
                "--ship-port", ship, "--engine-ports", engine, "--grpc-port", grpc, "--workers", "2", "--json", *more,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        return self.process

    def ready(self) -> dict[str, object]:
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        self.records = Records(self.data / "run")
        welcome: dict[str, object] = json.loads(line)
        return welcome

    def record(self, name: str) -> RunRecord | None:
        assert self.records is not None
        record = self.records.read(name)
        return record if record is not None and record.pid and self.records.lives(record) else None

    def pid(self, name: str) -> int:
        record = self.record(name)
        return 0 if record is None else record.pid

    def kill(self, name: str) -> int:
        """Kills the process with SIGKILL; its pid."""
        pid = self.pid(name)
        handle = Handle.open(pid)
        assert handle is not None, name
        handle.send(signal.SIGKILL)
        handle.close()
        return pid

    def back(self, name: str, killed: int) -> None:
        until(lambda: self.pid(name) not in {0, killed}, f"{name} is not back")

    def family(self) -> list[int]:
        """Every process of this folder: those that watch one another may start new ones that no record names yet."""
        mark = os.fsencode(self.data)
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (folder / "cmdline").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return found

    def end(self) -> None:
        """Kills what is left of it until nothing is."""
        deadline = time.monotonic() + PATIENCE_S
        while (pids := self.family()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.poll()
            time.sleep(0.02)
        if self.process is not None:
            self.process.communicate()
        assert not self.family()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path / "d")
    yield made
    made.end()


NAMES = ("control", "gateway-0", "gateway-1", "ship", "supervisor", "launcher")


def test_it_starts_everything_and_drains_on_a_signal(up: Up) -> None:
    process = up.start()
    welcome = up.ready()
    assert welcome["gateway"] == f"http://127.0.0.1:{up.ports[0]}"
    assert all(up.pid(name) for name in NAMES)
    pids = [up.pid(name) for name in NAMES]
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert not any(Handle.open(pid) for pid in pids)
    assert not list((up.data / "run").glob("*.json"))


def test_each_process_is_back_after_it_was_killed(up: Up) -> None:
    process = up.start()
    up.ready()
    for name in NAMES:
        others = {other: up.pid(other) for other in NAMES if other != name}
        killed = up.kill(name)
        up.back(name, killed)
        assert {other: up.pid(other) for other in others} == others, f"{name} took others with it"
    process.wait(PATIENCE_S)
    # The launcher was the last to be killed: its successor takes the signal now.
    os.kill(up.pid("launcher"), signal.SIGTERM)
    until(lambda: not list((up.data / "run").glob("*.json")), "it did not drain")


def test_a_child_that_died_while_no_supervisor_lived_is_back(up: Up) -> None:
    up.start()
    up.ready()
    supervisor = up.pid("supervisor")
    gateway = up.pid("gateway-0")
    os.kill(supervisor, signal.SIGKILL)
    os.kill(gateway, signal.SIGKILL)
    up.back("supervisor", supervisor)
    up.back("gateway-0", gateway)


def test_both_watchers_killed_the_next_up_adopts_what_lives(up: Up) -> None:
    process = up.start()
    up.ready()
    control = up.pid("control")
    os.kill(process.pid, signal.SIGSTOP)  # so that it cannot bring the supervisor back before it is killed itself
    os.kill(up.pid("supervisor"), signal.SIGKILL)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    up.start()
    up.ready()
    assert up.pid("control") == control


def test_replicas_outlive_the_supervisor(up: Up) -> None:
    import asyncio

    from penstock.runtime.local import LocalRuntime

    async def start() -> int:
        runtime = LocalRuntime(up.data / "supervisor.sock")
        try:
            return (await runtime.start(ReplicaSpec(id="bot-0", directory="/m", model="bot:v1"))).pid
        finally:
            await runtime.close()

    up.start()
    up.ready()
    engine = asyncio.run(start())
    supervisor = up.kill("supervisor")
    up.back("supervisor", supervisor)
    killed = up.kill("engine-bot-0")
    assert killed == engine
    up.back("engine-bot-0", killed)


def test_a_second_interrupt_ends_it_at_once(up: Up) -> None:
    process = up.start()
    up.ready()
    pids = [up.pid(name) for name in NAMES]
    os.kill(up.pid("gateway-0"), signal.SIGSTOP)  # would drain for ever
    process.send_signal(signal.SIGINT)
    until(lambda: up.pid("gateway-1") == 0, "it does not drain")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    until(lambda: not any(Handle.open(pid) for pid in pids), "something was left")


def test_the_folder_is_used_by_one_alone(up: Up) -> None:
    first = up.start()
    up.ready()
    second = subprocess.run(  # noqa: PLW1510
        [sys.executable, STUB, "up", "--data", str(up.data)], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert second.returncode == 1
    assert f"already in use by pid {first.pid}" in second.stderr


def test_a_port_in_use_is_told_with_its_flag(up: Up) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.ports[1]))
        taken.listen()
        process = up.start()
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert errors == (
        f"Error: Port {up.ports[1]} on 127.0.0.1 is in use by another program; choose another port with --control-port.\n"
    )


def test_a_process_that_will_not_start_ends_up_with_its_sentence(up: Up) -> None:
    up.data.mkdir()
    (up.data / "refuse-control").touch()
    process = up.start()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "control refuses to start" in errors
    assert not list((up.data / "run").glob("*.json"))


def test_a_damaged_database_is_told(up: Up) -> None:
    up.data.mkdir()
    (up.data / "penstock.db").write_bytes(b"no database")
    process = up.start()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "penstock.db is damaged" in errors
