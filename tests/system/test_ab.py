"""An A/B test as the example runs it: a population asks the evaluation questions, the evaluator judges, the verdict says which is better."""

import html
import re
from typing import Any

import httpx
import pytest

from tests.system.program import penstock, run_module
from tests.system.starter import ROOT, Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(600)]


def populate(up: Up, users: int, seed: int) -> dict[str, dict[str, int]]:
    """Lets `users` customers ask; how many answers each arm got right."""
    return run_module(
        "examples.support_bot.population", "--url", up.gateway, "--key", up.secret("demo.key"), "--users", str(users),
        "--seed", str(seed), "--json", deadline_s=400,
    )  # fmt: skip


def split(up: Up, route: str, name: str) -> None:
    """Returns when the gateway splits the route's traffic: when every arm has a replica that answers."""
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    body = {"model": route, "messages": [{"role": "user", "content": "Hello"}], "user": "nobody", "max_tokens": 1}
    with httpx.Client(base_url=up.gateway, headers=headers, timeout=30) as http:
        until(
            lambda: (
                http.post("/v1/chat/completions", json=body).headers["x-penstock-arm"].startswith(f"{name}/") or None
            ),
            60,
        )


def standing(up: Up, name: str) -> dict[str, Any]:
    """What the API tells of the experiment, as `penstock experiments status` does."""
    headers = {"authorization": f"Bearer {up.secret('admin.key')}"}
    reply = httpx.get(f"{up.control}/api/v1/experiments/{name}", headers=headers, timeout=30)
    assert reply.status_code == 200, reply.text
    told: dict[str, Any] = reply.json()
    return told


def judged(up: Up, name: str, told: int) -> dict[str, Any] | None:
    """The experiment, once its statistics hold all that was `told`, or it was decided before."""
    status = standing(up, name)
    units = sum(int(arm["units"]) for arm in status["verdict"]["arms"])
    return status if units >= told or status["state"] == "decided" else None


def test_the_better_version_is_found_and_told(up: Up) -> None:
    penstock(up, "experiments", "create", "-f", str(ROOT / "examples/support_bot/ab.yaml"))
    penstock(up, "experiments", "start", "support-bot-1-1")
    split(up, "support-bot", "support-bot-1-1")
    asked: dict[str, dict[str, int]] = {}
    for seed in range(1, 25):  # an always-valid test may be looked at as often as one likes
        for arm, found in populate(up, 150, seed).items():
            known = asked.setdefault(arm, {"right": 0, "asked": 0})
            known["right"] += found["right"]
            known["asked"] += found["asked"]
        told = sum(found["asked"] for arm, found in asked.items() if arm.startswith("support-bot-1-1/"))
        status = until(lambda told=told: judged(up, "support-bot-1-1", told), 30)  # type: ignore[misc]
        if status["verdict"]["state"] == "better":
            break
    status = penstock(up, "experiments", "status", "support-bot-1-1")
    assert {"support-bot-1-1/control", "support-bot-1-1/treatment"} <= set(asked), asked
    assert status["verdict"]["state"] == "better", (asked, status["verdict"])
    primary = [c for c in status["verdict"]["comparisons"] if c["primary"]]
    assert primary[0]["lower"] > 0
    with httpx.Client(base_url=up.control, timeout=30) as browser:
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', browser.get("/sign-in").text)
        browser.post("/sign-in", data={**dict(hidden), "key": up.secret("admin.key")})
        page = browser.get("/experiments/support-bot-1-1")
    assert page.status_code == 200
    for reason in status["verdict"]["reasons"]:
        assert html.escape(reason, quote=False) in page.text


def test_the_same_version_twice_gives_no_winner(up: Up) -> None:
    running = standing(up, "support-bot-1-1")
    if running["state"] in ("running", "paused"):
        penstock(up, "experiments", "stop", "support-bot-1-1")
    penstock(up, "experiments", "create", "-f", str(ROOT / "examples/support_bot/aa.yaml"))
    penstock(up, "experiments", "start", "support-bot-aa")
    split(up, "support-bot", "support-bot-aa")
    asked = populate(up, 300, 99)
    assert set(asked) == {"support-bot-aa/control", "support-bot-aa/treatment"}
    verdict = until(lambda: judged(up, "support-bot-aa", 300), 30)["verdict"]
    assert verdict["state"] in ("running", "no_difference"), verdict
    penstock(up, "experiments", "stop", "support-bot-aa")
