"""`penstock journal tail` and `stats` on records that were written, and `tail --follow` while they are."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from penstock.cli.main import cli
from penstock.core.exchange import Phases, Record
from penstock.journal.writer import JournalWriter
from tests.journal.records import exchange, observation, opened

PATIENCE_S = 90.0


def write(data: Path, worker: str, *records: Record) -> None:
    writer = JournalWriter.open(data / "journal" / worker, worker, loop=None, clock=time.time)
    for record in records:
        writer.append(record)
    writer.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two workers' journals: five requests, of which one is refused, and a word of feedback; and two more requests."""
    first = [exchange(n, phases=Phases(1, 2, 3, 4, 5, 6_500_000)) for n in (1, 3, 5, 7)]
    refused = exchange(9, status=429, outcome="refused", error="rate_limit_exceeded", route="other")
    write(tmp_path, "gateway-0", *first, refused, observation(1))
    write(tmp_path, "gateway-1", exchange(2), exchange(4))
    return tmp_path


def run(data: Path, *words: str) -> str:
    result = CliRunner().invoke(cli, ["journal", *words, "--data", str(data)], env={"COLUMNS": "240"})
    assert result.exit_code == 0, result.output
    return result.stdout


def records(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["records"]
    return found


def name(number: int) -> str:
    return exchange(number).id


def test_tail_shows_the_last_records_of_all_workers_in_order(data: Path) -> None:
    lines = run(data, "tail").splitlines()
    assert len(lines) == 8
    assert [word for line in lines for word in line.split() if word.startswith(("req_", "o1"))] == [
        *(name(number) for number in (1, 2, 3, 4, 5, 7, 9)),
        "o1",
    ]
    last = records(run(data, "tail", "-n", "3", "--json"))
    assert [one["record"]["id"] for one in last] == [name(7), name(9), "o1"]
    refused = next(line for line in lines if name(9) in line)
    assert "gateway-0" in refused and "429 refused other" in refused and refused.endswith("rate_limit_exceeded")
    assert any(f"{name(7)} 200 ok bot" in line and "10+20 tokens 6.5 ms" in line for line in lines)
    assert any("o1 feedback about r" in line for line in lines)


def test_tail_of_one_worker_names_places_where_the_record_stands(data: Path) -> None:
    told = records(run(data, "tail", "--worker", "gateway-1", "--json"))
    assert [(one["worker"], one["record"]["id"]) for one in told] == [("gateway-1", name(2)), ("gateway-1", name(4))]
    whole = (data / "journal" / "gateway-1").glob("*")
    files = [path.read_bytes() for path in whole if path.is_file()]
    for one in told:
        assert any(one["record"]["id"].encode() in content[one["offset"] : one["offset"] + 400] for content in files)


def test_stats_count_what_stands_there(data: Path) -> None:
    told = {one["worker"]: one for one in json.loads(run(data, "stats", "--json"))["workers"]}
    assert set(told) == {"gateway-0", "gateway-1"}
    first = told["gateway-0"]
    assert first["records"] == {"exchange": 5, "observation": 1}
    assert (first["outcomes"], first["routes"]) == ({"ok": 4, "refused": 1}, {"bot": 4, "other": 1})
    assert (first["prompt_tokens"], first["completion_tokens"], first["cost_nanousd"]) == (50, 100, 150)
    files = (data / "journal" / "gateway-0").glob("*")
    assert first["bytes"] <= sum(path.stat().st_size for path in files)
    assert first["bytes"] > 6 * 50
    assert json.loads(run(data, "stats", "--worker", "gateway-1", "--json"))["workers"] == [told["gateway-1"]]
    shown = run(data, "stats")
    assert "gateway-0" in shown and "50+100" in shown


class Following:
    """`tail --follow` as a process, and the lines that it has printed."""

    def __init__(self, data: Path, *words: str) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            # SIGINT is ignored where the tests run in a shell's background, and would be here.
            ["env", "--default-signal=INT", sys.executable, "-P", "-u", "-m", "penstock.cli", "journal", "tail", "--follow", *words, "--data", str(data)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def next(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.lines.get(timeout=PATIENCE_S))
        return told

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self._thread.join(PATIENCE_S)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


def test_follow_goes_on_as_records_come_from_old_workers_and_new_ones(data: Path) -> None:
    writer = JournalWriter.open(data / "journal" / "gateway-1", "gateway-1", loop=None, clock=time.time)
    following = Following(data, "--json", "-n", "1")
    try:
        assert following.next()["record"]["id"] == "o1", "what was there already, as far as it was asked for"
        deadline = time.monotonic() + PATIENCE_S
        number, seen = 100, ""
        while not seen:  # it says nothing when it has begun to follow
            number += 1
            writer.append(exchange(number))
            writer.flush()
            try:
                seen = json.loads(following.lines.get(timeout=0.5))["record"]["id"]
            except queue.Empty:
                assert time.monotonic() < deadline
        assert seen > name(100)
        writer.append(opened(200))
        writer.append(exchange(200, stream=True))
        writer.flush()
        while (told := following.next())["record"].get("id") != name(200):
            assert told["worker"] == "gateway-1"
        write(data, "gateway-7", exchange(300))
        told = following.next()
        assert (told["worker"], told["record"]["id"]) == ("gateway-7", name(300)), "a worker that came meanwhile"
        assert told["record"] == msgspec.to_builtins(exchange(300))
    finally:
        code = following.stop()
        writer.close()
    assert code in {0, 1, 130}, "Ctrl-C ends it"
