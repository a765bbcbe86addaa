"""Real Prometheus and Alertmanager over the starter: every target, every rule, every panel; an alert comes and goes."""

import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.core.metrics import TABLE
from tests.system.monitors import DEPLOY, Monitors, fetched, monitors, ship_port
from tests.system.oddities import oddities, probed, tell
from tests.system.starter import ROOT, Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(240)]
TRACE = "0af7651916cd43dd8448eb211c80319c"
TAKES_LONGER = (  # than a short load: a reference of drift, and yesterday's population; tests/control holds what they tell
    "max by (model, arm, signal) (penstock_drift_psi)",
    "sum by (model, arm, signal, against) (penstock_drift_alarm)",
)
BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def call(up: Up, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{up.control}/api/v1{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {up.secret('admin.key')}", "content-type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        content = reply.read()
        return json.loads(content) if content else None


@pytest.fixture(scope="module")
def key(up: Up) -> Iterator[str]:
    """Of a tenant whose policy flags addresses."""
    rules = [{"name": "addresses", "detect": "email", "on": ["input"], "do": "flag"}]
    documents = [
        {"kind": "Policy", "name": "watched", "spec": {"rules": rules}},
        {"kind": "Tenant", "name": "watched", "spec": {"policy": "watched"}},
    ]
    call(up, "POST", "/apply", {"documents": documents})
    made = call(up, "POST", "/keys", {"name": "watched", "tenant": "watched"})
    yield made["key"]
    call(up, "POST", f"/keys/{made['id']}/revoke")
    for path in ("/tenants/watched", "/policies/watched"):
        call(up, "DELETE", path)


@pytest.fixture(scope="module")
def experiment(up: Up) -> Iterator[str]:
    """One that runs on the starter's route; its arms are one build, at two temperatures."""
    build = {"build": "support-bot:v1.1.0"}
    spec = {
        "strategy": "ab",
        "route": "support-bot",
        "hypothesis": "warm answers are liked better",
        "arms": [{"name": "cold"} | build, {"name": "warm", "params": {"temperature": 0.2}} | build],
        "control": "cold",
        "primary": {"metric": "success", "minimum_effect": 0.05},
        "plan": {"units": 1000},
    }
    call(up, "POST", "/experiments", {"name": "watched", "spec": spec})
    call(up, "POST", "/experiments/watched/start")
    yield "watched"
    for step in ("stop", "archive"):
        call(up, "POST", f"/experiments/watched/{step}")


def ask(up: Up, key: str, body: dict[str, Any]) -> tuple[int, str]:
    """The status of one request, and its experiment."""
    request = urllib.request.Request(
        f"{up.gateway}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            reply.read()
            return reply.status, str(reply.headers["x-penstock-arm"] or "").partition("/")[0]
    except urllib.error.HTTPError as error:
        return error.code, ""


def load(up: Up, key: str, experiment: str) -> None:
    """A few requests of each kind and user; at first gateways know neither key nor experiment."""
    for number in range(6):
        text = f"My address is jane{number}@example.org. Where is my order 447190{number}?"
        body = {
            "model": "support-bot",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 16,
            "user": f"u{number}",
        }
        until(lambda body=body: True if ask(up, key, body) == (200, experiment) else None, 60)  # type: ignore[misc]
        assert ask(up, key, body | {"stream": True}) == (200, experiment)
        assert ask(up, key, body | {"model": "nothing"}) == (404, "")


@pytest.fixture(scope="module")
def watched(up: Up, key: str, experiment: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitors]:
    """Prometheus has seen all targets before a load and after it."""
    load(up, key, experiment)
    folder = tmp_path_factory.mktemp("monitors")
    (folder / "prompts").write_text("hi\nWhere is my order 4471900?\n")
    probed(up, str(ROOT / "examples/support_bot/models/support-bot-v1.0.0"), str(folder / "prompts"))
    with oddities(up, call, key) as odd, monitors(up, folder) as made:
        odd()
        until(lambda: True if made.samples("sum(up)") == [5.0] else None, 60)
        seen = "sum(scrape_duration_seconds > 0)"
        until(lambda: made.samples(seen) or None, 60)
        load(up, key, experiment)
        odd()
        tell(up, key, traced(up, key))
        moved = 'min(changes(penstock_requests_total{outcome="ok",route="support-bot"}[1m]) > 0)'
        until(lambda: made.samples(moved) or None, 60)
        until(lambda: made.samples("sum(penstock_experiment_units) == 6") or None, 60)
        until(lambda: made.samples("count(route:penstock_late_first_tokens:rate5m >= 0)") or None, 60)
        until(lambda: looked_at(up, key, made), 60)
        yield made


def traced(up: Up, key: str) -> str:
    """The id of a request whose caller samples its trace."""
    body = {"model": "support-bot", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "user": "traced"}
    request = urllib.request.Request(
        f"{up.gateway}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        reply.read()
        return str(reply.headers["x-penstock-request-id"])


def looked_at(up: Up, key: str, made: Monitors) -> bool | None:
    """Whether Prometheus has seen that engines looked at answers, of which they see a share."""
    if made.samples("sum(rate(penstock_scored_tokens_total[1m])) > 0"):
        return True
    ask(up, key, {"model": "support-bot", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8})
    return None


def test_every_process_is_scraped_and_the_one_that_is_not_there_is_missed(watched: Monitors, up: Up) -> None:
    targets = watched.ask("targets", state="active")["activeTargets"]
    by_job: dict[str, list[str]] = {}
    for target in targets:
        by_job.setdefault(target["labels"]["job"], []).append(target["health"])
        assert target["health"] == "up" or target["labels"]["instance"] == watched.nobody, target["lastError"]
    assert {job: len(found) for job, found in by_job.items()} == {"gateway": 1, "control": 1, "ship": 2, "engine": 2}
    engines = {t["labels"]["replica"] for t in targets if t["labels"]["job"] == "engine"}
    assert engines == {one["id"] for one in call(up, "GET", "/replicas")}
    groups = watched.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 50
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []


def test_promtool_takes_what_every_process_tells(up: Up, watched: Monitors) -> None:
    known = {entry.name for entry in TABLE}
    engines = [
        target["scrapeUrl"]
        for target in watched.ask("targets", state="active")["activeTargets"]
        if target["labels"]["job"] == "engine"
    ]
    ship = f"http://127.0.0.1:{ship_port(up)}/metrics"
    for url in (f"{up.gateway}/metrics", f"{up.control}/metrics", ship, *engines):
        text = fetched(url)
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        # vLLM's names have colons, which promtool keeps for recorded series; dashboards of vLLM look for them.
        said = [line for line in checked.stderr.decode().splitlines() if not line.startswith("vllm:")]
        assert said == [], url
        assert checked.returncode == (3 if url in engines else 0)
        told = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", text.decode(), re.MULTILINE))
        assert {name for name in told if not name.endswith("_created")} <= known
        assert {name for name in told if name.startswith("process_")} == {n for n in known if n.startswith("process_")}


@pytest.mark.parametrize("file", BOARDS, ids=[file.stem for file in BOARDS])
def test_every_panel_shows_something(watched: Monitors, file: Any) -> None:
    queries = [
        (panel["title"], target["expr"])
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(queries) >= 6
    for title, query in queries:
        expr = re.sub(r"\$(?:__rate_interval|__range)", "2m", query)
        if not query.startswith(TAKES_LONGER):
            expr = re.sub(r"or vector\(0\)$", "", expr)  # which would show something, whatever stands before it
        expr = re.sub(r'(?<=")\$\w+', ".*", expr)
        assert "$" not in expr, (title, expr)

        def shown(expr: str = expr) -> bool | None:
            return any(math.isfinite(value) for value in watched.samples(expr)) or None

        try:
            until(shown, 20, every_s=0.5)
        except AssertionError:
            pytest.fail(f"{file.stem}, {title}: {expr} gives nothing")


def test_a_time_leads_to_the_trace_that_stands_for_it(watched: Monitors, up: Up) -> None:
    def found() -> list[Any] | None:
        now = time.time()
        told = watched.ask(
            "query_exemplars",
            query='gen_ai_server_request_duration_seconds_bucket{gen_ai_request_model="support-bot"}',
            start=str(now - 3600),
            end=str(now + 60),
        )
        return [e for series in told for e in series["exemplars"] if e["labels"] == {"trace_id": TRACE}] or None

    exemplars = until(found, 30)
    assert 0 < float(exemplars[0]["value"]) < 60
    plain = fetched(f"{up.gateway}/metrics")
    assert TRACE.encode() not in plain


def tell_alertmanager(watched: Monitors, *alerts: dict[str, str], over: bool = False) -> None:
    """Alerts as Prometheus tells them: they fire from now on, or are over."""
    now = datetime.now(UTC)
    told = [
        {
            "labels": labels,
            "annotations": {"summary": "It is so."},
            "startsAt": (now - timedelta(seconds=5)).isoformat(),
            "endsAt": (now if over else now + timedelta(hours=1)).isoformat(),
        }
        for labels in alerts
    ]
    request = urllib.request.Request(
        f"{watched.alertmanager}/api/v2/alerts",
        data=json.dumps(told).encode(),
        headers={"content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=30).close()


def test_a_cause_keeps_back_what_follows_from_it_until_it_is_over(watched: Monitors, up: Up) -> None:
    cause = {"alertname": "PenstockPoolDown", "severity": "page", "pool": "kept-back"}
    follows = {"alertname": "PenstockReplicaOut", "severity": "ticket", "pool": "kept-back", "replica": "r1"}
    other = follows | {"pool": "elsewhere"}

    def heard() -> set[tuple[str, str]]:
        return {(a["name"], a["labels"].get("pool", "")) for a in call(up, "GET", "/alerts?state=firing&limit=1000")}

    def suppressed() -> list[str]:
        query = urllib.parse.urlencode({"filter": 'pool="kept-back"'})
        found = json.loads(fetched(f"{watched.alertmanager}/api/v2/alerts?{query}"))
        return [one["labels"]["alertname"] for one in found if one["status"]["inhibitedBy"]]

    tell_alertmanager(watched, cause)
    until(lambda: ("PenstockPoolDown", "kept-back") in heard() or None, 60)
    tell_alertmanager(watched, follows, other)
    until(
        lambda: ("PenstockReplicaOut", "elsewhere") in heard() or None, 60
    )  # its group was told of, so the other's turn came too
    until(lambda: suppressed() == ["PenstockReplicaOut"] or None, 60)
    assert ("PenstockReplicaOut", "kept-back") not in heard()
    tell_alertmanager(watched, cause, over=True)
    until(lambda: ("PenstockReplicaOut", "kept-back") in heard() or None, 60)
    tell_alertmanager(watched, follows, other, over=True)
    until(lambda: not {pool for _, pool in heard()} & {"kept-back", "elsewhere"} or None, 60)


def test_an_alert_comes_to_control_and_goes(watched: Monitors, up: Up) -> None:
    def listed(state: str) -> dict[str, Any] | None:
        command = [sys.executable, "-P", "-m", "penstock.cli", "alerts", "list", "--state", state, "--json"]
        asked = [*command, "--data", str(up.data), "--url", up.control]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(asked, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        found = [one for one in json.loads(done.stdout)["alerts"] if one["labels"].get("instance") == watched.nobody]
        return found[0] if found else None

    alert = until(lambda: listed("firing"), 60)
    assert (alert["name"], alert["severity"]) == ("PenstockTargetDown", "ticket")
    assert alert["summary"] == f"ship at {watched.nobody} does not answer Prometheus."
    assert (ROOT / alert["runbook"]).is_file()
    watched.without_nobody()
    over = until(lambda: listed("resolved"), 60)
    assert over["sequence"] == alert["sequence"]
    assert over["ends_at"] >= over["starts_at"]
