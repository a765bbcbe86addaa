"""`make bench-connections` in small: connections that rest are small, streams on all of them are whole, those beyond the limit hear so at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.system.starter import ROOT


def test_hundreds_of_connections_and_streams_on_one_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.connections", "--connections", "600", "--streams", "150", "--refusals", "300",
         "--seconds", "1"],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = done.stdout
    for found in re.findall(r"([\d.]+) KiB each", told):
        assert float(found) < 20, told
    assert "150 whole, 0 lost" in told
    assert "450 answered afterwards, 0 lost" in told
    assert "300 told 503, 0 otherwise" in told
