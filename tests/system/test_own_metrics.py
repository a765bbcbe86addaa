"""An experiment on metrics of one's own events at planned looks, from `penstock apply` to the console, with odd events in between."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.program import penstock
from tests.system.starter import ROOT, Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(300)]

NAME = "orders"
DOCUMENT = """
kind: Experiment
name: orders
spec:
  strategy: ab
  route: support-bot
  unit: user
  hypothesis: "Short answers sell more"
  arms:
    - {name: control, build: "support-bot:v1.1.0", params: {max_tokens: 2}}
    - {name: treatment, build: "support-bot:v1.1.0", params: {max_tokens: 1}}
  primary: {metric: revenue, minimum_effect: 5}
  metrics:
    - {name: revenue, event: purchase, type: mean, unit: EUR}
    - {name: basket, event: purchase, type: ratio, unit: EUR}
    - {name: returned, event: visit, type: proportion}
  winsorise: {revenue: [0, 100]}
  stratify: {by: tenant, values: [demo]}
  bayes: {}
  plan: {units: 60, deviation: 10, inference: group_sequential, looks: 2}
"""
USERS = 100


def ask(http: httpx.Client, user: str) -> tuple[str, str]:
    """The arm that `user` is in, and the request's id."""
    body = {"model": "support-bot", "messages": [{"role": "user", "content": "Hello"}], "user": user}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-penstock-arm", ""), answer.headers["x-penstock-request-id"]


def tell(http: httpx.Client, body: dict[str, Any], status: int = 200) -> None:
    answer = http.post("/v1/events", json=body)
    assert answer.status_code == status, answer.text


def odd(http: httpx.Client, request: str) -> None:
    """What may come, and must change nothing but what is told of it."""
    tell(http, {"id": "again", "name": "visit", "request_id": request})
    tell(http, {"id": "again", "name": "visit", "request_id": request})
    tell(http, {"id": "nowhere", "name": "purchase", "request_id": "req_" + "0" * 26, "value": 9.0})
    tell(http, {"id": "large", "name": "purchase", "request_id": request, "value": 1e9})
    tell(http, {"id": "none", "name": "purchase", "request_id": request})
    tell(http, {"id": "old", "name": "purchase", "user": "orders-user-0", "value": 50.0, "at": "2001-01-01T00:00:00Z"})
    tell(http, {"id": "huge", "name": "purchase", "request_id": request, "value": 1e300}, status=400)
    tell(http, {"id": "stranger", "name": "purchase", "user": "nobody-knows", "value": 5.0})


def test_own_events_decide_at_planned_looks(up: Up, tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(DOCUMENT)
    penstock(up, "apply", "-f", str(path))
    running = [one["name"] for one in penstock(up, "experiments", "list")["experiments"] if one["state"] == "running"]
    for name in running:
        penstock(up, "experiments", "stop", name)
    penstock(up, "experiments", "start", NAME)
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    with httpx.Client(base_url=up.gateway, headers=headers, timeout=60) as http:
        until(lambda: ask(http, "nobody")[0].startswith(f"{NAME}/") or None, 60)
        first = ""
        for number in range(USERS):
            arm, request = ask(http, f"orders-user-{number}")
            first = first or request
            value = 10.0 + number % 7 + (25.0 if arm == f"{NAME}/treatment" else 0.0)
            about = {"request_id": request} if number % 2 else {"user": f"orders-user-{number}"}
            tell(http, {"id": f"order-{number}", "name": "purchase", "value": value, **about})
        odd(http, first)

    def judged() -> dict[str, Any] | None:
        told = penstock(up, "experiments", "status", NAME)
        return told if told["state"] == "decided" else None

    told = until(judged, 60)
    verdict = told["verdict"]
    assert verdict["state"] == "better", verdict
    assert "at planned look" in verdict["reasons"][0]
    revenue = verdict["comparisons"][0]
    assert (revenue["metric"], revenue["unit"], revenue["look"] in {1, 2}) == ("revenue", "EUR", True)
    assert revenue["estimate"] > 5
    assert revenue["belief"]["chance_better"] > 0.99
    said = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "experiments", "status", NAME, "--url", up.control],
        capture_output=True, text=True, timeout=120, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PENSTOCK_KEY": up.secret("admin.key")},
    ).stdout  # fmt: skip
    for part in (verdict["reasons"][0][:40], "BOUNDARY", "crossed", "NEEDED", "CHANCE BETTER", "revenue *"):
        assert part in said, said
    with httpx.Client(base_url=up.control, timeout=30) as browser:
        fields = browser.get("/sign-in").text.split('name="csrf" value="')[1].split('"')[0]
        browser.post("/sign-in", data={"csrf": fields, "key": up.secret("admin.key")})
        page = browser.get(f"/experiments/{NAME}", params={"metric": "basket"})
    assert page.status_code == 200
    for part in ("Planned looks", "Basket", "likely better", "Back to revenue"):
        assert part in page.text
