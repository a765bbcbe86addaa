"""Client and control killed at random moments of push, commit, sweep and promotion: nothing committed is lost, nothing else is seen, fsck is clean."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_ports
from tests.system.starter import ROOT

ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


class Killed:
    """A control process that is killed and started again, and what clients were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.committed: dict[str, str] = {}
        self.begun: set[str] = set()
        self.deleting: set[str] = set()
        self.control: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "control.log").open("ab") as log:
            self.control = subprocess.Popen(
                [sys.executable, "-m", "penstock.cli", "control", "--data", str(self.data), "--control-port", str(self.port), "--empty"],
                stdout=log, stderr=log, env=ENV, cwd=self.folder,
            )  # fmt: skip
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    key = (self.data / "admin.key").read_text().strip()
                    self.http = httpx.Client(
                        base_url=f"{self.url}/api/v1", headers={"authorization": f"Bearer {key}"}, timeout=120
                    )
                    self.key = key
                    return
            except httpx.HTTPError:
                assert self.control.poll() is None, (self.folder / "control.log").read_text()
                time.sleep(0.05)
        raise AssertionError("control was not ready")

    def stop(self, how: int) -> None:
        assert self.control is not None
        self.control.send_signal(how)
        self.control.wait(60)

    def round(self, seed: int) -> None:
        """Let a client work, kill it or control at a random moment, and look at what is left."""
        draw = random.Random(seed)
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.system.registry_worker", self.url, self.key, str(self.folder / "source"), str(seed)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, cwd=self.folder,
        )  # fmt: skip
        assert worker.stdout is not None
        words = [worker.stdout.readline()]
        assert words[0].startswith("begin"), worker.communicate()[1]
        time.sleep(draw.uniform(0.02, 1.2))
        control_dies = draw.random() < 0.5
        if control_dies:
            self.stop(signal.SIGKILL)
        worker.kill()
        words += worker.communicate()[0].splitlines()
        self.heard(words)
        if control_dies:
            self.start()
        self.look()

    def heard(self, words: list[str]) -> None:
        for word in words:
            kind, label, *digest = word.split()
            if kind == "begin":
                self.begun.add(label)
            elif kind == "committed":
                self.committed[label] = digest[0]
            else:
                self.deleting.add(label)

    def look(self) -> None:
        seen: list[dict[str, Any]] = self.http.get("/models/m/versions").json() if self.known() else []
        found = {version["label"]: version for version in seen}
        assert sorted(version["number"] for version in seen) == list(range(1, len(seen) + 1))
        assert set(found) <= self.begun
        for label, digest in self.committed.items():
            assert found[label]["digest"] == digest
            assert found[label]["state"] == "committed" or label in self.deleting
        lines = [json.loads(line) for line in self.http.post("/storage/fsck", json={}).text.splitlines()]
        assert [line for line in lines if line["type"] == "damage"] == []
        assert lines[-1]["type"] == "done"

    def known(self) -> bool:
        return bool(self.http.get("/models").json())

    def finish(self) -> None:
        """Everything that is there is fetched, and what nobody needs goes."""
        assert self.http.post("/storage/gc", json={"grace_s": 0}).status_code == 200
        self.look()
        for label in self.committed:
            version = self.http.get(f"/models/m/versions/{label}").json()
            if version["state"] == "committed":
                for file in version["files"]:
                    got = self.http.get(f"/models/m/versions/{label}/files/{file['path']}")
                    assert len(got.content) == file["size"]
        assert len(self.committed) > 0


@pytest.mark.system
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_at_random_moments_lose_nothing_and_show_nothing_else(tmp_path: Path, rounds: int) -> None:
    killed = Killed(tmp_path)
    killed.start()
    try:
        for seed in range(1, rounds + 1):
            killed.round(seed)
        killed.finish()
    finally:
        killed.stop(signal.SIGTERM)
