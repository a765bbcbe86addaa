"""`penstock up` as its reader meets it: the line that it prints is answered, its keys are the owner's alone, and a second start goes on."""

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.starter import ROOT, command
from tests.system.waiting import until

pytestmark = [
    pytest.mark.system,
    pytest.mark.engine,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
]


@contextmanager
def started(line: list[str], said: Path) -> Iterator[None]:
    env = {
        **os.environ,
        "PENSTOCK_STARTER": str(ROOT / "examples/support_bot/models"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    with said.open("wb") as out:
        process = subprocess.Popen(line, stdout=out, env=env, cwd=said.parent)
    try:
        until(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None or None, 150)
        assert process.poll() is None, said.read_text()
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0


def answer(said: Path) -> str:
    """What the printed line of `curl` gets."""
    [line] = re.findall(r"^curl .+$", said.read_text(), re.MULTILINE)
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True, cwd=said.parent
    ).stdout


def test_its_own_line_is_answered_and_the_second_start_is_quick(tmp_path: Path) -> None:
    line = [word for word in command(tmp_path / "penstock-data") if word != "--json"]
    with started(line, tmp_path / "first"):
        assert "4471902" in answer(tmp_path / "first")
        for name in ("admin.key", "demo.key"):
            assert stat.S_IMODE((tmp_path / "penstock-data" / name).stat().st_mode) == 0o600
    begun = time.monotonic()
    with started(line, tmp_path / "second"):
        assert "4471902" in answer(tmp_path / "second")
        assert time.monotonic() - begun < 60  # 20 s where nothing else runs
