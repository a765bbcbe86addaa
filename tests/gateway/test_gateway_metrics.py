"""Cells, and one exposition for all workers of a host."""

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.exchange import Exchange, Phases, Usage
from penstock.core.metrics import TABLE
from penstock.gateway.metrics import PHASES, Meters, merge_expositions
from penstock.gateway.record import count
from penstock.gateway.siblings import Siblings
from penstock.gateway.sweep import Sweep
from penstock.gateway.tally import Tally
from penstock.net.client import Client
from tests.gateway.house import running

WHO = 'gen_ai_operation_name="chat",gen_ai_provider_name="penstock"'


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
    cell = meters.distribution("gen_ai_server_request_duration_seconds", "chat", "penstock", "m", "")
    for value in (0.001, 0.005, 0.006, 100.0):
        cell.observe(value)
    lines = meters.exposition().decode().splitlines()
    name = 'gen_ai_server_request_duration_seconds_bucket{arm="",%s,gen_ai_request_model="m",le="%s",worker="w"} %s'
    assert name % (WHO, "0.005", "2.0") in lines
    assert name % (WHO, "0.01", "3.0") in lines
    assert name % (WHO, "60.0", "3.0") in lines
    assert name % (WHO, "+Inf", "4.0") in lines


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
    assert rich.count("# UNIT gen_ai_server_request_duration_seconds seconds\n") == 1
    assert "# UNIT penstock_requests " not in rich
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


def told(meters: Meters, name: str) -> dict[tuple[str, ...], float]:
    """The values of a counter, by those of its labels."""
    labels = next(entry.labels for entry in TABLE if entry.name == name)
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(meters.exposition().decode())
        for sample in family.samples
        if sample.name == name
    }


def exchange(number: int, **more: str) -> Exchange:
    return Exchange(id=f"{number}", at=0.0, phases=Phases(1, 2, 3, 4, 5, 6), usage=Usage(1, 1), **more)  # type: ignore[arg-type]


def test_a_family_has_room_for_so_many_series_and_counts_the_rest_together() -> None:
    meters = Meters("w", most_series=10)
    for number in range(100):
        for _ in range(2):
            count(meters, exchange(number, tenant=f"t{number}", route=f"r{number % 40}", version=f"v{number}"))
    for entry in TABLE:
        if "gateway" in entry.on and "tenant" in entry.labels and entry.kind == "counter":
            assert len(told(meters, entry.name)) == 11, entry.name
    requests = told(meters, "penstock_tenant_requests_total")
    assert requests["t0", "r0", "v0"] == 2
    assert requests["other", "other", "other"] == sum(requests.values()) - 20 == 180
    by_route = told(meters, "penstock_requests_total")
    assert sum(by_route.values()) == 200
    assert len(by_route) == 11
    phases = {key[2] for key in told(meters, "penstock_phase_seconds_total") if key[0] == "other"}
    assert phases <= set(PHASES), "what has a few values keeps them"
    assert phases
    overflow = told(meters, "penstock_series_overflow_total")
    assert overflow[("penstock_tenant_requests_total",)] >= 90
    again = Meters("w", most_series=10)
    again.resume(*meters.numbers())
    assert told(again, "penstock_tenant_requests_total") == requests, "over a restart too"
    assert len(meters._legs) <= 11


def test_series_of_what_is_gone_leave_and_the_others_stay() -> None:
    meters = Meters("w")
    for number in range(3):
        count(meters, exchange(number, tenant=f"t{number}", route=f"r{number}", version="v"))
    count(meters, exchange(9, tenant="t0", route="r1", version="old"))
    assert {("tenant", "t0"), ("route", "r2"), ("gen_ai_request_model", "r2"), ("version", "old")} <= meters.values()
    meters.forget({("tenant", "t0"), ("route", "r2"), ("gen_ai_request_model", "r2"), ("version", "old")})
    assert set(told(meters, "penstock_tenant_requests_total")) == {("t1", "r1", "v")}
    text = meters.exposition().decode()
    assert '"r2"' not in text and '"t0"' not in text and '"old"' not in text
    assert 'route="r0"' in text
    count(meters, exchange(10, tenant="t0", route="r2", version="v"))
    count(meters, exchange(11, tenant="t1", route="r1", version="v"))
    assert told(meters, "penstock_tenant_requests_total") == {("t1", "r1", "v"): 2, ("t0", "r2", "v"): 1}


async def test_what_no_snapshot_has_had_for_long_is_swept(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        gateway = house.worker.gateway
        count(gateway.meters, exchange(1, tenant="gone", route="gone"))
        count(gateway.meters, exchange(2, tenant="acme", route="mock"))
        sweep = Sweep(gateway, kept_s=100.0)
        for now in (0.0, 99.0):
            sweep.look(now)
        assert ("gone", "gone", "") in told(gateway.meters, "penstock_tenant_requests_total")
        sweep.look(100.0)
        assert set(told(gateway.meters, "penstock_tenant_requests_total")) == {("acme", "mock", "")}


def test_units_are_those_of_the_names_and_stand_where_openmetrics_lets_them() -> None:
    measures = {"seconds", "bytes", "tokens", "usd", "ratio", "celsius", "watts", "joules", "nats"}
    assert {entry.unit for entry in TABLE} <= measures | {"1"}
    for entry in TABLE:
        end = entry.name.removesuffix("_total").rsplit("_", 1)[-1]
        if end in measures:
            assert entry.unit == end, entry.name
    meters = Meters("w")
    text = meters.exposition(openmetrics=True).decode()
    families = {family.name: family.unit for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    for entry in TABLE:
        name = entry.name.removesuffix("_total")
        if "gateway" in entry.on:
            assert families[name] == (entry.unit if name.endswith(f"_{entry.unit}") else ""), entry.name


def test_series_of_generative_ai_say_what_was_asked_and_of_whom() -> None:
    meters = Meters("w")
    for operation in ("chat", "responses", "completions", "embeddings"):
        count(meters, exchange(1, route="r", operation=operation))
    text = meters.exposition().decode()
    name = "gen_ai_server_request_duration_seconds_count"
    for operation, requests in (("chat", "2.0"), ("text_completion", "1.0"), ("embeddings", "1.0")):
        labels = f'arm="",gen_ai_operation_name="{operation}",gen_ai_provider_name="penstock",gen_ai_request_model="r"'
        assert f'{name}{{{labels},worker="w"}} {requests}' in text.splitlines()
