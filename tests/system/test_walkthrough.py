"""docs/walkthrough.md, as it stands there, on a whole installation with the real models: a worse version refused with its figures, a better one promoted by canary, and back under load."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.program import penstock
from tests.system.starter import ROOT, Up, running

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.soak, pytest.mark.timeout(1800)]
PAGE = ROOT / "docs" / "walkthrough.md"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    with running(tmp_path / "penstock-data", "--workers", "2") as up:
        yield up


def blocks() -> list[tuple[str, bool]]:
    """Each block of commands, and whether it is refused."""
    text = PAGE.read_text(encoding="utf-8").split("<!-- walk: begin -->")[1].split("<!-- walk: end -->")[0]
    found = re.findall(r"(<!-- refused -->\n)?```sh\n(.*?)```", text, re.DOTALL)
    return [(block, bool(refused)) for refused, block in found]


def script() -> str:
    """One program for bash of all blocks: each line is told before it is run, what is refused must be."""
    lines = ["set -euo pipefail"]
    for block, refused in blocks():
        body = block.strip()
        lines.append(f"if {body}; then exit 97; else test $? -eq 1; fi" if refused else body)
    return "\n".join(lines) + "\n"


def test_the_walk(own: Up, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "penstock").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m penstock.cli "$@"\n')
    (programs / "penstock").chmod(0o755)
    place = tmp_path / "place"  # as the source tree, but that what the walk writes goes here
    place.mkdir()
    for name in ("examples", "docs", ".venv"):
        (place / name).symlink_to(ROOT / name)
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "PENSTOCK_URL": own.control,
        "PENSTOCK_KEY": own.secret("admin.key"),
    }
    text = script().replace("http://127.0.0.1:8080", own.gateway).replace("penstock-data", str(own.data))
    text = text.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, timeout=1500, check=False, cwd=place, env=env
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr

    pipelines = {one["label"]: one for one in penstock(own, "pipeline", "list")["pipelines"]}
    worse, better = pipelines["v1.0.1"], pipelines["v2.0.0"]
    assert (worse["state"], better["state"]) == ("refused", "done")
    stopped = next(step for step in worse["steps"] if step["state"] == "refused")
    assert (stopped["kind"], stopped["environment"]) == ("gate", "production")
    figure = _suite(stopped)
    assert figure["items"] == 173
    assert figure["candidate"] < figure["incumbent"] - 0.1
    assert "suite support-questions: " in done.stdout
    assert "points" in done.stderr
    by_canary = better["steps"][-1]
    assert by_canary["canary"].startswith("canary-support-bot-")
    assert "leaves out that canary is worse by more than 10.0 points in success" in by_canary["words"]
    assert "architecture" in done.stdout  # why the diff suggests a major version

    revisions = penstock(own, "history", "support-bot", "--in", "production")["revisions"]
    assert [(one["action"], one["label"]) for one in revisions[:3]] == [
        ("rollback", "v1.0.0"),
        ("canary", "v2.0.0"),
        ("promote", "v1.0.0"),
    ]
    told = re.search(
        r"with the old digest ([0-9.]+) s after the command was given, ([0-9.]+) s after .*; 0 of (\d+) requests failed",
        done.stdout,
    )
    assert told is not None, done.stdout
    assert int(told[3]) > 40
    assert float(told[2]) < 1.0
    if os.getloadavg()[0] < (os.cpu_count() or 1):  # else it is the start of a Python program that takes so long
        assert float(told[1]) < 1.0


def _suite(step: dict[str, Any]) -> dict[str, Any]:
    outcome = next(one for one in step["outcomes"] if one["gate"] == "suite support-questions")
    found: dict[str, Any] = json.loads(json.dumps(outcome["figures"][0]))
    return found
