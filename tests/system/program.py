"""The program, run as its user runs it."""

import json
import os
import subprocess
import sys
from typing import Any

from penstock.diagnosis.traffic import WINDOW_S
from tests.system.starter import ROOT, Up
from tests.system.waiting import until


def run_module(module: str, *arguments: str, deadline_s: float = 120) -> dict[str, Any]:
    """Runs `python -m module` in the source tree and reads the JSON document that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True, text=True, timeout=deadline_s, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def penstock(up: Up, *arguments: str) -> dict[str, Any]:
    """`penstock ARGUMENTS --json` with the admin key."""
    return run_module("penstock.cli", *arguments, "--url", up.control, "--key", up.secret("admin.key"), "--json")


def found_healthy(up: Up) -> dict[str, Any]:
    """What `penstock doctor --json` says once it finds nothing that does harm: processes that have just begun report within seconds."""
    told: dict[str, Any] = {}

    def healthy() -> bool | None:
        told.update(doctor_told(up, WINDOW_S))
        return told["healthy"] or None

    try:
        until(healthy, 60, 0.5)
    except AssertionError:
        raise AssertionError(told["causes"]) from None
    return told


def doctor_told(up: Up, window_s: float) -> dict[str, Any]:
    """What `penstock doctor --json` says of what runs beside `up.data`, whether or not something is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "doctor", "--data", str(up.data), "--window", str(window_s), "--json"],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (not told["healthy"])
    return told
