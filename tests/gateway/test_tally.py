"""A worker's counters over its death: neither down nor double, and exact where the journal tells."""

from __future__ import annotations

import shutil
from pathlib import Path

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from penstock.core.exchange import Exchange, Phases, Usage
from penstock.gateway.metrics import Meters
from penstock.gateway.record import count
from penstock.gateway.tally import Tally, read_saved
from tests.gateway.house import House, running
from tests.gateway.raw_client import ask, chat


def families(meters: Meters) -> list[Family]:
    """All that it tells."""
    return list(text_string_to_metric_families(meters.exposition(openmetrics=True).decode()))  # type: ignore[no-untyped-call]


def samples(meters: Meters) -> dict[tuple[str, ...], float]:
    """Counters and histograms, by name and label values."""
    found = {}
    for family in families(meters):
        if family.type in {"counter", "histogram"} and not family.name.startswith("process_"):
            for sample in family.samples:
                found[sample.name, *map(str, sorted(sample.labels.items()))] = sample.value
    return found


def of(house: House) -> dict[tuple[str, ...], float]:
    return samples(house.worker.gateway.meters)


async def asked(house: House) -> None:
    """Whole, stream, cached, refused and failed."""
    for request in (chat("one two"), chat("one two three", stream=True), chat("!status500"), chat("x", key="nobody")):
        await ask(house.port, request)
    await house.settled()


async def test_what_was_counted_goes_on(tmp_path: Path) -> None:
    route = {"attempts": 1}
    async with running(tmp_path, route=route) as house:
        await asked(house)
        told = of(house)
    assert told["penstock_journal_bytes_total", "('worker', 'w0')"] > 0
    async with running(tmp_path, route=route) as house:
        assert of(house) == told
        await asked(house)
        after = of(house)
    moved = {key[0] for key in told if after[key] > told[key]}
    assert {"penstock_requests_total", "penstock_errors_total", "penstock_journal_bytes_total"} <= moved
    assert all(after[key] >= value for key, value in told.items())
    name = "penstock_requests_total"
    assert sum(v for k, v in after.items() if k[0] == name) == 2 * sum(v for k, v in told.items() if k[0] == name) == 8


async def test_what_came_after_the_last_writing_is_read_from_the_journal(tmp_path: Path) -> None:
    async with running(tmp_path, route={"attempts": 1}) as house:
        await asked(house)
        house.worker._tally.save()
        await asked(house)
        told = of(house)
        shutil.copytree(
            tmp_path, tmp_path.with_name("killed"), ignore=shutil.ignore_patterns("run")
        )  # as a kill leaves it
    async with running(tmp_path.with_name("killed"), route={"attempts": 1}) as house:
        again = of(house)
    of_records = ("penstock_requests", "penstock_errors", "penstock_phase", "penstock_stream", "gen_ai_")
    compared = {key: value for key, value in told.items() if key[0].startswith(of_records)}
    assert len(compared) > 30
    assert {key: again[key] for key in compared} == compared


def test_a_file_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "w0.counters"
    file.write_bytes(b"nonsense")
    meters = Meters("w0")
    tally = Tally(file, tmp_path / "journal", meters)
    assert read_saved(file) is None
    assert (tmp_path / "w0.damaged").read_bytes() == b"nonsense"
    tally.save()
    assert read_saved(file) is not None


def test_phases_add_up_to_the_durations() -> None:
    meters = Meters("w0")
    for number in range(700):
        phases = Phases(10, 20 + number, 0 if number % 3 else 900, 1000, 1000 + number, 2000 + number)
        count(meters, Exchange(id=f"{number}", at=0.0, phases=phases, usage=Usage(1, 1), route="r"))
    told = samples(meters)
    spent = sum(value for key, value in told.items() if key[0] == "penstock_phase_seconds_total")
    durations = sum(v for k, v in told.items() if k[0] == "gen_ai_server_request_duration_seconds_sum")
    assert spent > 0
    assert abs(spent - durations) < 1e-9 * durations + 1e-12


def test_a_sampled_trace_stands_for_its_bucket() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    meters = Meters("w0")
    phases = Phases(10, 20, 30, 40_000_000, 90_000_000, 100_000_000)
    for flags, route in (("00", "unsampled"), ("01", "sampled")):
        told = f"00-{trace}-b7ad6b7169203331-{flags}"
        count(meters, Exchange(id="x", at=7.0, phases=phases, usage=Usage(3, 6), route=route, trace=told, stream=True))
    found = {}
    for family in families(meters):
        for sample in family.samples:
            if sample.exemplar is not None:
                found[sample.name, sample.labels["gen_ai_request_model"], sample.labels["le"]] = sample.exemplar
    name = "gen_ai_server_%s_seconds_bucket"
    assert set(found) == {
        (name % "request_duration", "sampled", "0.1"),
        (name % "time_to_first_token", "sampled", "0.05"),
        (name % "time_per_output_token", "sampled", "0.01"),
    }
    exemplar = found[name % "request_duration", "sampled", "0.1"]
    assert (exemplar.labels, exemplar.value, float(exemplar.timestamp or 0.0)) == ({"trace_id": trace}, 0.1, 7.1)
    assert "trace_id" not in meters.exposition().decode()
