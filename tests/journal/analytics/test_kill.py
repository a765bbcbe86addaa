import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.journal.analytics.child import run
from penstock.journal.analytics.query import Bounds, ask_for
from penstock.journal.analytics.store import AnalyticsStore
from penstock.journal.segments import list_segments
from penstock.journal.writer import Bounds as JournalBounds
from penstock.journal.writer import JournalWriter
from tests.journal.records import exchange, observation, opened

ROOT = Path(__file__).parents[3]
DAY_S = 86400


def write(folder: Path, worker: str, numbers: range) -> None:
    bounds = JournalBounds(segment_bytes=30_000)
    writer = JournalWriter.open(folder / "journal" / worker, worker, loop=None, clock=lambda: 1.0, bounds=bounds)
    for number in numbers:
        if number % 7 == 0:
            writer.append(opened(number))
        writer.append(exchange(number, at=float(number % 2 * DAY_S + number), tenant=("acme", "", "b/c d")[number % 3]))
        if number % 10 == 0:
            writer.append(observation(number))
        if number % 25 == 0:
            writer.flush()
    writer.flush()
    writer.close()


def ship(folder: Path, kill_after_s: float | None) -> bool:
    """Run the shipper until it stands still, or kill it before; whether it stood still."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("shipping_child.py")), str(folder)],
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"begun\n"
        if kill_after_s is None:
            assert child.stdout.readline() == b"done\n"
            return True
        time.sleep(kill_after_s)  # the moment of the kill is what is tried
        return False
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()


def test_no_row_is_doubled_or_lost_by_any_kill(tmp_path: Path) -> None:
    """Short form; the long one kills a hundred times."""
    killed(tmp_path, 5)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_no_row_is_doubled_or_lost_by_a_hundred_kills(tmp_path: Path) -> None:
    killed(tmp_path, 100)


def killed(folder: Path, times: int) -> None:
    draws = random.Random(8)
    wanted = 0
    for turn in range(times):
        write(folder, "w0", range(turn * 1000, turn * 1000 + 300))
        write(folder, "w1", range(turn * 1000 + 300, turn * 1000 + 600))
        wanted += 600
        ship(folder, draws.uniform(0.0, 0.25))
        sound(folder, wanted, whole=False)
    ship(folder, None)
    sound(folder, wanted, whole=True)
    left = {str(p.relative_to(folder / "analytics")) for p in (folder / "analytics").rglob("*.parquet")}
    store = AnalyticsStore(folder / "analytics")
    store.tidy(1e9)
    assert set(store.state.files) <= left
    assert {str(p.relative_to(folder / "analytics")) for p in (folder / "analytics").rglob("*.parquet")} == set(
        store.state.files
    )
    assert not list((folder / "analytics").rglob("*.draft"))
    store.close()
    assert list_segments(folder / "journal" / "w0")


def sound(folder: Path, wanted: int, *, whole: bool) -> None:
    """No row is there twice at any moment; all are in the end."""
    bounds = Bounds(rows=1)
    sql = (
        "SELECT count(*), count(DISTINCT id), count(DISTINCT (worker, segment, position)), "
        "(SELECT count(*) FROM observations) FROM exchanges"
    )
    ((rows, identities, places, observed),) = run(ask_for(folder / "analytics", sql, "", bounds)).rows
    assert rows == identities == places <= wanted
    if whole:
        assert rows == wanted
        assert observed == wanted // 10
