"""Cells, and one exposition for all workers of a host."""

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.metrics import TABLE
from penstock.gateway.metrics import Meters, merge_expositions
from penstock.gateway.siblings import Siblings
from penstock.gateway.tally import Tally
from penstock.net.client import Client


def test_every_metric_of_the_table_is_told() -> None:
    meters = Meters("w")
    for entry in TABLE:
        labels = tuple("x" for _ in entry.labels)
        if entry.kind == "histogram":
            meters.distribution(entry.name, *labels).observe(0.02)
        elif entry.kind == "counter":
            meters.cell(entry.name, *labels).value += 2
    text = meters.exposition().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for entry in TABLE:
        if "gateway" in entry.on:
            assert entry.name.removesuffix("_total") in families
    sample = {
        s.name: s.value
        for s in families["gen_ai_server_request_duration_seconds"].samples
        if s.labels.get("le") in {None, "0.025", "+Inf"}
    }
    assert sample["gen_ai_server_request_duration_seconds_count"] == 1
    assert sample["gen_ai_server_request_duration_seconds_sum"] == 0.02


def test_a_metric_that_is_not_in_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Meters("w").cell("penstock_nothing_total")


def test_buckets_add_up() -> None:
    meters = Meters("w")
    cell = meters.distribution("gen_ai_server_request_duration_seconds", "m", "")
    for value in (0.001, 0.005, 0.006, 100.0):
        cell.observe(value)
    lines = meters.exposition().decode().splitlines()
    name = 'gen_ai_server_request_duration_seconds_bucket{arm="",gen_ai_request_model="m",le="%s",worker="w"} %s'
    assert name % ("0.005", "2.0") in lines
    assert name % ("0.01", "3.0") in lines
    assert name % ("60.0", "3.0") in lines
    assert name % ("+Inf", "4.0") in lines


async def test_the_worker_that_is_asked_tells_of_all(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)  # longer than a Unix socket's path may be
    clients = [Client(), Client()]
    meters = [Meters("w0"), Meters("w1")]
    tallies = [Tally(tmp_path / f"w{index}.counters", tmp_path / "journal", meters[index]) for index in (0, 1)]
    siblings = [Siblings(folder, f"w{index}", meters[index], clients[index], tallies[index]) for index in (0, 1)]
    for index, one in enumerate(siblings):
        meters[index].cell("penstock_errors_total", "x").value = index + 1
        await one.start()
    (folder / "w2.metrics").touch()  # of one that was killed
    text = (await siblings[0].collect()).decode()
    assert 'penstock_errors_total{code="x",worker="w0"} 1.0' in text
    assert 'penstock_errors_total{code="x",worker="w1"} 2.0' in text
    assert text.count("# TYPE penstock_errors_total counter") == 1
    assert len(list(text_string_to_metric_families(text))) == len([e for e in TABLE if "gateway" in e.on])
    assert not (folder / "w2.metrics").exists()
    rich = (await siblings[0].collect(openmetrics=True)).decode()
    families = {family.name for family in parse_openmetrics(rich)}  # type: ignore[no-untyped-call]
    assert families == {family.name for family in text_string_to_metric_families(text)}
    assert rich.count("# EOF") == 1 and rich.endswith("# EOF\n")
    await siblings[1].stop()
    left = (await siblings[0].collect()).decode()
    assert 'penstock_errors_total{code="x",worker="w1"} 2.0' in left
    assert 'penstock_requests_in_flight{worker="w1"}' not in left
    await siblings[0].stop()
    for client in clients:
        await client.close()


def test_merging_keeps_families_together() -> None:
    one = b'# HELP a A\n# TYPE a counter\na{worker="0"} 1\n'
    two = b'# HELP a A\n# TYPE a counter\na{worker="1"} 2\n# HELP b B\n# TYPE b gauge\nb 3\n'
    assert merge_expositions([one, two]) == (
        b'# HELP a A\n# TYPE a counter\na{worker="0"} 1\na{worker="1"} 2\n# HELP b B\n# TYPE b gauge\nb 3\n'
    )
