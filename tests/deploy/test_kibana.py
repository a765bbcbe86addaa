"""Kibana's objects are those that the script makes, whole, and speak of fields that documents have."""

import asyncio
import json
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from penstock.core.settings import load_settings
from penstock.journal.elastic_template import FIELDS, index_template
from penstock.net.server import Reply, Request, Server

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


class Kibana:
    """As far as the set-up meets it, and as strict as its API: what changes something needs `kbn-xsrf`, a rule that is there is not made again."""

    def __init__(self) -> None:
        self.rules: dict[str, dict[str, Any]] = {}
        self.imported = b""
        self.made = 0
        self.server = Server(self.handle)

    async def handle(self, request: Request, reply: Reply) -> None:
        status, told = self.answer(request) if request.header(b"kbn-xsrf") else (400, {"message": "no kbn-xsrf"})
        reply.send(status, ((b"content-type", b"application/json"),), msgspec.json.encode(told))

    def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        if request.path == "/api/saved_objects/_import":
            assert request.query == b"overwrite=true"
            assert (request.header(b"content-type") or b"").startswith(b"multipart/form-data")
            self.imported = bytes(request.body)
            return 200, {"success": True, "successCount": len(OBJECTS)}
        name = request.path.removeprefix("/api/alerting/rule/")
        if request.method == "DELETE":
            return (204, {}) if self.rules.pop(name, None) else (404, {"message": "not found"})
        assert request.header(b"content-type") == b"application/json"
        if request.method != "POST" or name in self.rules:
            return 409, {"message": "conflict"}
        self.rules[name] = json.loads(bytes(request.body))
        self.made += 1
        return 200, {"id": name}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_set_up_brings_objects_and_rules_to_kibana_any_number_of_times() -> None:
    setup = COMPOSE["services"]["kibana-setup"]
    assert setup["volumes"] == ["./kibana:/penstock:ro"]
    assert setup["entrypoint"] == ["/bin/bash", "-c"]
    kibana = Kibana()
    await kibana.server.start("127.0.0.1", 0)
    (command,) = setup["command"]
    command = command.replace("$$", "$").replace("http://kibana:5601", f"http://127.0.0.1:{kibana.server.port}")
    command = command.replace("/penstock/", f"{FILE.parent}/")
    for _ in range(2):
        done = await asyncio.create_subprocess_exec("/bin/bash", "-c", command, stderr=asyncio.subprocess.PIPE)
        _, complaint = await done.communicate()
        assert done.returncode == 0, complaint
    assert FILE.read_bytes() in kibana.imported
    files = list((FILE.parent / "rules").glob("*.json"))
    assert kibana.rules == {path.stem: json.loads(path.read_text()) for path in files}
    assert kibana.made == 2 * len(files) > 10
    await kibana.server.drain(0.1)
    done = await asyncio.create_subprocess_exec("/bin/bash", "-c", command, stderr=asyncio.subprocess.PIPE)
    await done.communicate()
    assert done.returncode, "it is tried again while Kibana is away"


def test_the_stack_brings_records_to_the_sinks() -> None:
    services = COMPOSE["services"]
    assert "XPACK_ENCRYPTEDSAVEDOBJECTS_ENCRYPTIONKEY" in services["kibana"]["environment"], "rules need it"
    told = services["penstock"]["environment"]
    off = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in told.items()}
    ship = load_settings(off).ship
    assert (ship.otlp_url, ship.zipkin_url, ship.elasticsearch_url) == ("", "", "")
    for name in ("PENSTOCK_SHIP_OTLP_URL", "PENSTOCK_SHIP_ELASTICSEARCH_URL"):
        assert told[name] == f"${{{name}:-}}"
    assert services["jaeger"]["profiles"] == ["traces"]
    assert {tuple(services[name]["profiles"]) for name in ("elasticsearch", "kibana", "kibana-setup")} == {("logs",)}
