"""`penstock explain` on a record of this machine's journal: the engine's phases, and replicas that were asked in vain."""

import json
import time
from pathlib import Path

from click.testing import CliRunner

from penstock.cli.main import cli
from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Exchange, Try
from penstock.journal.writer import JournalWriter
from tests.journal.sinks.records import served


def explained(data: Path, request: str, *words: str) -> str:
    away = {"PENSTOCK_URL": "http://127.0.0.1:9", "PENSTOCK_KEY": "pk-x", "COLUMNS": "200"}
    result = CliRunner().invoke(cli, ["explain", request, "--data", str(data), *words], env=away)
    assert result.exit_code == 0, result.output
    return result.stdout


def written(data: Path, *records: Exchange) -> Path:
    writer = JournalWriter.open(data / "journal" / "w", "w", loop=None, clock=time.time)
    for record in records:
        writer.append(record)
    writer.close()
    return data


def test_the_engine_s_phases_and_who_was_asked_in_vain_are_shown(tmp_path: Path) -> None:
    told = EnginePhases(1_000_000, 2_000_000, 8_000_000, 70_000_000, 500_000)
    lost = Try("failed", "bots", "r0", 70_000, 80_000, "upstream_reset")
    data = written(tmp_path, served(1, engine=told, tries=(lost,)), served(2))
    text = explained(data, served(1).id)
    assert "IN THE ENGINE" in text and "ASKED IN VAIN" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["prefill", "8.00", f"{15.545:.2f}"] in lines
    assert ["r0", "bots", "failed:", "upstream_reset", "0.01", "0.08"] in lines
    document = json.loads(explained(data, served(1).id, "--json"))
    assert [(phase["name"], phase["ms"]) for phase in document["engine"]] == [
        ("preprocess", 1.0),
        ("queue", 2.0),
        ("prefill", 8.0),
        ("decode", 70.0),
        ("postprocess", 0.5),
    ]
    assert document["tries"][0]["why"] == "failed"
    plain = explained(data, served(2).id)
    assert "IN THE ENGINE" not in plain and "ASKED IN VAIN" not in plain
