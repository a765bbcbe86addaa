"""A process that hangs without dying is replaced: stopped for good, each kind in turn, in the real installation."""

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from penstock.supervisor.query import processes
from tests.system.starter import Up, running
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
HANG_S = 3.0


def pid_of(up: Up, name: str) -> int:
    record = json.loads((up.data / "run" / f"{name}.json").read_text())
    return int(record["pid"]) if "pid" in record else 0


def back(up: Up, name: str, before: int) -> bool | None:
    try:
        now = pid_of(up, name)
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return (now not in {0, before} and Path(f"/proc/{now}").exists()) or None


def answers(url: str) -> bool | None:
    try:
        return httpx.get(url, timeout=2).status_code == 200 or None
    except httpx.HTTPError:
        return None


def ends(up: Up) -> dict[str, str]:
    """How each process ended last, as the supervisor tells."""
    return {one.name: one.last_exit for one in asyncio.run(processes(up.data / "supervisor.sock", 10))}


@pytest.mark.parametrize("names", [("gateway-1",), pytest.param(("control", "ship", "grpc"), marks=pytest.mark.soak)])
def test_what_is_stopped_for_good_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PENSTOCK_GATEWAY_DRAIN_S", "1")
    with running(tmp_path / "data", "--workers", "2", "--empty", hang_s=HANG_S) as up:
        stopped = {name: pid_of(up, name) for name in names if (up.data / "run" / f"{name}.json").exists()}
        untouched = pid_of(up, "gateway-0")
        for pid in stopped.values():
            os.kill(pid, signal.SIGSTOP)
        for name, pid in stopped.items():
            until(lambda name=name, pid=pid: back(up, name, pid), 90)  # type: ignore[misc]
            assert not Path(f"/proc/{pid}").exists(), f"{name} is still there"
        until(lambda: answers(f"{up.control}/readyz"), 60)
        until(lambda: answers(f"{up.gateway}/readyz"), 60)
        assert all("said nothing for" in how for name, how in ends(up).items() if name in stopped)

        if "control" not in names:
            return  # the short form
        supervisor = pid_of(up, "supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        until(lambda: back(up, "supervisor", supervisor), 90)
        assert pid_of(up, "gateway-0") == untouched, "what lives is adopted"
