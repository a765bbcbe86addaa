"""Kibana's objects are those that the script makes, whole, and speak of fields that documents have."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.core.settings import load_settings
from penstock.journal.elastic_template import FIELDS, index_template

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "kibana" / "penstock.ndjson"
OBJECTS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
BY_NAME = {(one["type"], one["id"]): one["attributes"] for one in OBJECTS}


def test_the_file_is_what_the_script_makes() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_kibana.py"))
    assert FILE.read_text() == made["text"](), "run scripts/make_kibana.py"


def fields(attributes: dict[str, Any]) -> Iterator[str]:
    """The fields that an object speaks of."""
    yield from attributes.get("columns", [])
    yield from (name for name, _ in attributes.get("sort", []))
    yield from json.loads(attributes.get("fieldFormatMap", "{}"))
    if "timeFieldName" in attributes:
        yield attributes["timeFieldName"]
    for agg in json.loads(attributes.get("visState", '{"aggs":[]}'))["aggs"]:
        if "field" in agg["params"]:
            yield agg["params"]["field"]
    meta = json.loads(attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}"))
    yield from re.findall(r"([\w.@]+)\s*:", meta.get("query", {}).get("query", ""))


@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: str(one["id"]))
def test_an_object_refers_to_what_stands_before_it_and_to_fields_that_exist(one: dict[str, Any]) -> None:
    before = {(other["type"], other["id"]) for other in OBJECTS[: OBJECTS.index(one)]}
    assert {(reference["type"], reference["id"]) for reference in one["references"]} <= before
    assert set(fields(one["attributes"])) <= set(FIELDS)
    names = {reference["name"] for reference in one["references"]}
    meta = json.loads(one["attributes"].get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}"))
    assert ("indexRefName" in meta) == (one["type"] in {"search", "visualization"})
    assert meta.get("indexRefName") in {None, *names}


def test_sums_are_of_numbers_and_terms_of_words() -> None:
    kinds = {"sum": {"long", "double"}, "percentiles": {"long", "double"}, "terms": {"keyword"}}
    kinds |= {"cardinality": {"keyword"}, "date_histogram": {"date"}}
    seen = set()
    for (kind, _), attributes in BY_NAME.items():
        if kind != "visualization":
            continue
        aggs = json.loads(attributes["visState"])["aggs"]
        assert len({agg["id"] for agg in aggs}) == len(aggs)
        for agg in aggs:
            if agg["type"] != "count":
                assert FIELDS[agg["params"]["field"]] in kinds[agg["type"]], attributes["title"]
                seen.add(agg["type"])
    assert seen == set(kinds)


def test_data_views_are_the_template_s_streams() -> None:
    views = [attributes["title"] for (kind, _), attributes in BY_NAME.items() if kind == "index-pattern"]
    assert views == index_template()["index_patterns"]


def test_the_dashboard_shows_every_chart_once_and_none_covers_another() -> None:
    (board,) = [one for one in OBJECTS if one["type"] == "dashboard"]
    panels = json.loads(board["attributes"]["panelsJSON"])
    named = {reference["name"]: (reference["type"], reference["id"]) for reference in board["references"]}
    shown = [named[f"{panel['panelIndex']}:{panel['panelRefName']}"] for panel in panels]
    assert len(set(shown)) == len(shown)
    assert {one for one in BY_NAME if one[0] == "visualization"} <= set(shown)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridData"]
        assert grid["x"] + grid["w"] <= 48
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not own & cells
        cells |= own


def test_the_stack_brings_the_file_to_kibana_and_records_to_the_sinks() -> None:
    services = COMPOSE["services"]
    setup = services["kibana-setup"]
    assert any(str(volume).startswith("./kibana/penstock.ndjson:") for volume in setup["volumes"])
    assert "/api/saved_objects/_import?overwrite=true" in str(setup["command"])
    told = services["penstock"]["environment"]
    off = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in told.items()}
    ship = load_settings(off).ship
    assert (ship.otlp_url, ship.zipkin_url, ship.elasticsearch_url) == ("", "", "")
    for name in ("PENSTOCK_SHIP_OTLP_URL", "PENSTOCK_SHIP_ELASTICSEARCH_URL"):
        assert told[name] == f"${{{name}:-}}"
    assert services["jaeger"]["profiles"] == ["traces"]
    assert {tuple(services[name]["profiles"]) for name in ("elasticsearch", "kibana", "kibana-setup")} == {("logs",)}
