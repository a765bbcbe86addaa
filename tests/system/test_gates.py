"""The example's gates on the whole installation: the worse version is refused with its figures though its examiner is killed again and again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.program import penstock
from tests.system.starter import ROOT, Up, running
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.soak, pytest.mark.timeout(900)]
EXAMPLE = ROOT / "examples" / "support_bot"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("gates") / "penstock-data") as up:
        yield up


def run(up: Up, *words: str, key: str = "") -> subprocess.CompletedProcess[str]:
    """A command that may be refused."""
    environment = {**os.environ, "PENSTOCK_DATA": str(up.data), **({"PENSTOCK_KEY": key} if key else {})}
    return subprocess.run(
        [sys.executable, "-P", "-m", "penstock.cli", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )


def examiner_pid(up: Up) -> int | None:
    try:
        told: dict[str, Any] = json.loads((up.data / "run" / "engine-examiner.json").read_bytes())
    except (OSError, ValueError):
        return None
    return int(told.get("pid") or 0) or None


def under_way(up: Up) -> dict[str, Any] | None:
    found = penstock(up, "gates", "list")["evaluations"]
    return next((one for one in found if one["state"] == "running" and one["suite"] == "support-questions"), None)


def test_the_example_refuses_the_worse_version_and_lets_the_better_one_in(own: Up, tmp_path: Path) -> None:
    for name in ("questions", "safety"):
        penstock(own, "suites", "add", str(EXAMPLE / "suites" / f"{name}.jsonl"), f"support-{name}")
    penstock(own, "apply", "-f", str(EXAMPLE / "gates.yaml"))
    early = run(own, "promote", "support-bot:v1.0.0", "--to", "production")
    assert early.returncode == 1
    assert "penstock gates run support-bot:v1.0.0 --for production" in early.stderr

    penstock(own, "gates", "run", "support-bot:v1.0.0", "--for", "production", "--no-wait")
    for _ in range(3):  # SIGKILL in the middle of the work: the next examiner goes on
        seen = until(lambda: under_way(own), 120)
        until(lambda done=seen["done"]: (now := under_way(own)) is None or now["done"] > done or None, 60)  # type: ignore[misc]
        pid = examiner_pid(own)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda old=pid: examiner_pid(own) not in (None, old) or None, 60)  # type: ignore[misc]
    finished = run(own, "gates", "run", "support-bot:v1.0.0", "--for", "production", "--json")
    gates = {one["gate"]: one for one in json.loads(finished.stdout)["outcomes"]}
    figure = gates["suite support-questions"]["figures"][0]
    assert gates["suite support-questions"]["state"] == "failed"
    assert figure["items"] == 173
    assert figure["candidate"] < figure["incumbent"] - 0.03
    refused = run(own, "promote", "support-bot:v1.0.0", "--to", "production")
    assert "on the same 173 items" in refused.stderr

    key = penstock(own, "keys", "create", "--name", "reviewer", "--role", "operator")["key"]
    nobody = run(own, "approve", "support-bot:v1.0.0", "--for", "production", key=key)
    assert (nobody.returncode, "penstock keys adopt" in nobody.stderr) == (1, True)
    penstock(own, "principals", "create", "rita", "--role", "operator")
    assert penstock(own, "keys", "adopt", "reviewer", "--principal", "rita")["principal"] == "rita"
    assert run(own, "approve", "support-bot:v1.0.0", "--for", "production", key=key).returncode == 0
    overridden = penstock(own, "promote", "support-bot:v1.0.0", "--to", "production", "--override", "a drill")
    assert "Gates overridden (suite support-questions" in overridden["reason"]
    penstock(own, "gates", "run", "support-bot:v1.1.0", "--for", "production")
    assert run(own, "approve", "support-bot:v1.1.0", "--for", "production", key=key).returncode == 0
    assert penstock(own, "promote", "support-bot:v1.1.0", "--to", "production")["state"] == "live"
    until(lambda: examiner_pid(own) is None or None, 120)  # nothing waits any more

    file = tmp_path / "version.tar"
    penstock(own, "signers", "create", "release")
    penstock(own, "models", "sign", "support-bot:v1.1.0", "--signer", "release")
    exported = penstock(own, "models", "export", "support-bot:v1.1.0", str(file))
    assert exported["signatures"] == 1
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", f"oci-archive:{file}", f"oci:{tmp_path / 'layout'}:v1.1.0"],
        check=True,
        timeout=120,
    )
    listed = subprocess.run(
        ["umoci", "list", "--layout", str(tmp_path / "layout")], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split() == ["v1.1.0"]
    with running(tmp_path / "other", "--empty") as other:
        public = penstock(own, "signers", "list")["signers"][0]["public"]
        penstock(other, "signers", "create", "theirs", "--public", public)
        imported = penstock(other, "models", "import", str(file))
        assert (imported["digest"], imported["signatures"]) == (exported["digest"], ["theirs"])
        assert penstock(other, "promote", "support-bot:v1.1.0", "--to", "production")["state"] == "live"
        penstock(other, "tenants", "create", "t")
        asked = {"model": "support-bot", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        secret = penstock(other, "keys", "create", "--tenant", "t")["key"]
        deadline = time.monotonic() + 60
        while True:
            reply = httpx.post(
                f"{other.gateway}/v1/chat/completions",
                json=asked,
                headers={"authorization": f"Bearer {secret}"},
                timeout=60,
            )
            if reply.status_code == 200 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert reply.headers["x-penstock-version"].endswith(exported["digest"]) or exported["digest"] in str(
            reply.headers
        )
