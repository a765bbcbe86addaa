import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from penstock.core.exchange import Exchange
from penstock.journal.inspect import verify
from penstock.journal.reader import iterate
from penstock.journal.writer import JournalWriter
from tests.journal.records import exchange

ROOT = Path(__file__).parents[2]


def killed_at_random(directory: Path, first: int, draws: random.Random) -> list[int]:
    """Start the child, kill it after a random number of acknowledgements, and say what it had acknowledged."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("writing_child.py")), str(directory), str(first)],
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert child.stdout is not None
    told = b""
    enough = draws.randint(1, 3000)
    deadline = time.monotonic() + 30
    while len(told) < enough and time.monotonic() < deadline:
        piece = os.read(child.stdout.fileno(), 4096)
        assert piece, "the child ended by itself"
        told += piece
    child.send_signal(signal.SIGKILL)
    told += child.stdout.read()
    child.wait()
    child.stdout.close()
    return [int(line) for line in told.decode().split("\n")[:-1]]


def test_whatever_was_acknowledged_is_there_once_after_any_kill(tmp_path: Path) -> None:
    draws = random.Random(20)
    directory = tmp_path / "w"
    acknowledged: list[int] = []
    for round_ in range(6):
        acknowledged += killed_at_random(directory, round_ * 1_000_000, draws)
    JournalWriter.open(directory, "w", loop=None, clock=time.time).close()
    found = [record for _, record in iterate(directory) if isinstance(record, Exchange)]
    times = Counter(record.id for record in found)
    assert acknowledged
    assert {times[exchange(n).id] for n in acknowledged} == {1}
    outcomes = {record.id: record.outcome for record in found}
    for n in acknowledged:
        if n % 3:
            assert outcomes[exchange(n).id] == "ok"
        elif n % 2:
            assert outcomes[exchange(n).id] == "crashed", "opened, and never ended"
    (report,) = verify(tmp_path)
    assert report.sound
    assert report.open == ()
