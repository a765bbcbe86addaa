"""The walk of docs/canary.md, as it stands there: a worse version is undone and blocked, a better one is promoted."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.starter import ROOT, Up, running
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.soak, pytest.mark.timeout(900)]
PAGE = ROOT / "docs" / "canary.md"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    with running(tmp_path / "penstock-data") as up:
        yield up


def walk() -> list[list[str]]:
    """The commands of the walk, block by block."""
    text = PAGE.read_text().split("<!-- walk: begin -->")[1].split("<!-- walk: end -->")[0]
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]


def do(up: Up, line: str) -> dict[str, Any]:
    """Run a line of the page with --json."""
    line = line.replace("http://127.0.0.1:8080", up.gateway).replace("penstock-data", str(up.data))
    for program, meant in (
        (r"^penstock ", f"{sys.executable} -m penstock.cli "),
        (r"^\.venv/bin/python ", f"{sys.executable} "),
    ):
        line = re.sub(program, meant, line)
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "PENSTOCK_URL": up.control,
        "PENSTOCK_KEY": up.secret("admin.key"),
    }
    done = subprocess.run(
        ["bash", "-c", f"{line} --json"], capture_output=True, text=True, timeout=400, check=False, cwd=ROOT, env=env
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def gets_its_share(up: Up) -> bool | None:
    """Asks a little; whether both versions are ready, so that gateways split the traffic."""
    ask = ".venv/bin/python -m examples.support_bot.population --url http://127.0.0.1:8080 --users 4 --seed 9"
    do(up, f'{ask} --key "$(cat penstock-data/demo.key)"')
    told = do(up, "penstock canary status support-bot")
    return sum(arm["requests"] for arm in told["arms"]) > 0 or None


def test_the_walk(own: Up) -> None:
    bad, good = walk()
    ends = []
    for block in (bad, good):
        for line in block:
            told = do(own, line)
            if line.startswith("penstock canary start"):
                until(lambda: gets_its_share(own), 120)
            if line.startswith("penstock canary status"):
                ends.append(told)
    worse, better = ends
    assert (worse["state"], worse["blocked"], worse["ended_by"]) == ("rolled_back", True, "penstock"), worse
    assert worse["words"][0].startswith("The guardrail on success tripped")
    assert better["state"] == "promoted", better
    assert any(
        "leaves out that canary is worse by more than 10.0 points in success" in word for word in better["words"]
    )
    labels = [(one["action"], one["label"], one["state"]) for one in do(own, good[-1])["revisions"]]
    assert labels[0] == ("canary", "v1.1.0", "live")
    assert ("canary", "v1.0.0", "failed") in labels
