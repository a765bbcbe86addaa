"""Log alerts fire and keep quiet, each in three forms: a watch, a rule of Kibana's (both evaluated over documents), and control's own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.control.watch.log_windows import LogWindows
from penstock.core.exchange import Exchange, Finding, Observation
from penstock.journal.ecs import document_of
from penstock.journal.elastic_template import FIELDS
from penstock.journal.log_rules import READ, TABLE, Record, group_of
from tests.deploy.es_query import Index, Refused, matches, rule_fires, watch_fires
from tests.deploy.log_cases import CASES, NOW, firing, silent
from tests.journal.sinks.elastic_server import flat
from tests.journal.sinks.records import EXCHANGES

ROOT = Path(__file__).parents[2]
SLOW_S = 10.0
made: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "make_log_alerts.py"))
ALERTS = {alert.name: alert for alert in TABLE}
NAMES = sorted(ALERTS)
QUIET = [(name, why) for name in NAMES for why in silent(name)]


def index_of(records: list[Record]) -> Index:
    found = []
    for record in records:
        document = document_of(record, SLOW_S)
        found.append((document.stream, json.loads(document.source)))
    return found


def all_forms(name: str, records: list[Record], now: float = NOW) -> list[set[str]]:
    """The groups that fire, as the watch, as the rule, and in control."""
    found = made["ident"](ALERTS[name])
    watch = json.loads((made["WATCHES"] / f"{found}.json").read_text())
    rule = json.loads((made["RULES"] / f"{found}.json").read_text())
    windows = LogWindows((ALERTS[name],), SLOW_S)
    for record in records:
        windows.add(record)
    index = index_of(records)
    mine = {one.group for one in windows.firing(now)}
    return [set(watch_fires(watch, index, now)), set(rule_fires(rule, index, now)), mine]


def test_the_files_are_what_the_script_makes() -> None:
    files = made["files"]()
    assert all(path.read_text() == text for path, text in files.items()), "run scripts/make_log_alerts.py"
    assert {path for folder in (made["RULES"], made["WATCHES"]) for path in folder.iterdir()} <= set(files)


def test_each_has_its_cases_and_its_page() -> None:
    assert set(CASES) == set(ALERTS)
    for alert in TABLE:
        assert f"`{alert.name}`" in (ROOT / "docs" / "runbooks" / f"{alert.runbook}.md").read_text()
        fields = {one.field for one in alert.where} | ({alert.by} if alert.by else set())
        assert fields <= set(FIELDS)
        assert fields <= set(READ[alert.dataset])
        assert alert.summary.format(count=1, group="g").endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_it_fires(name: str) -> None:
    group = CASES[name][2]
    assert all_forms(name, firing(name)) == [{group}] * 3
    assert all_forms(name, list(reversed(firing(name)))) == [{group}] * 3, "in whatever order they come"


@pytest.mark.parametrize(("name", "why"), QUIET)
def test_it_keeps_quiet(name: str, why: str) -> None:
    assert all_forms(name, silent(name)[why]) == [set(), set(), set()]


OBSERVED = st.builds(
    Observation,
    id=st.integers(0, 10**6).map(str),
    at=st.just(NOW),
    received=st.floats(NOW - 7200, NOW),
    kind=st.sampled_from(["feedback", "event", "report", "preference"]),
    tenant=st.sampled_from(["", "a", "b"]),
    name=st.sampled_from(["", "harmful", "wrong"]),
    rating=st.none() | st.sampled_from([-1.0, 0.0, 1.0]),
)
EXCHANGED = st.builds(
    lambda one, at, error, findings: Exchange(
        **{name: getattr(one, name) for name in one.__struct_fields__}
        | {"at": at, "error": error, "findings": findings}
    ),
    EXCHANGES,
    st.floats(NOW - 7200, NOW),
    st.sampled_from(["", "invalid_api_key", "route_unusable", "insufficient_quota"]),
    st.sampled_from([(), (Finding(rule="r", action="block", where="output"),)]),
)


@settings(max_examples=40)
@given(st.lists(EXCHANGED | OBSERVED, max_size=15))
def test_control_counts_what_elasticsearch_counts(records: list[Record]) -> None:
    for alert in TABLE:
        clauses = {"bool": {"filter": made["filters"](alert)}}
        for record in records:
            document = document_of(record, SLOW_S)
            fits = document.stream == f"logs-{alert.dataset}-default" and matches(
                clauses, json.loads(document.source), NOW
            )
            told = (
                {value for name, value in flat(json.loads(document.source)) if name == alert.by} if alert.by else {""}
            )
            assert group_of(alert, record, SLOW_S) == (next(iter(told)) if fits and told else None)


def test_what_elasticsearch_would_not_take_is_refused() -> None:
    index = index_of(firing("PenstockLogSlow"))
    wrongs: tuple[dict[str, Any], ...] = (
        {"terms": {"nothing": ["x"]}},
        {"terms": {"event.duration": ["x"]}},
        {"range": {"organization.id": {"gte": 1}}},
        {"match": {"tags": "slow"}},
        {"bool": {"should": []}},
        {"range": {"@timestamp": {"gte": "yesterday"}}},
    )
    for wrong in wrongs:
        with pytest.raises(Refused):
            matches(wrong, index[0][1], NOW)


def test_groups_beyond_the_bound_are_forgotten_and_memory_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.control.watch.log_windows.MOST_GROUPS", 10)
    alert = ALERTS["PenstockLogCrashed"]
    windows = LogWindows((alert,), SLOW_S)
    for n in range(50):
        windows.add(Exchange(id=str(n), at=NOW + n, worker=f"w{n}", outcome="crashed", error="crashed"))
    assert {one.group for one in windows.firing(NOW + 50)} == {f"w{n}" for n in range(40, 50)}
    assert not list(windows.firing(NOW + 5000))
