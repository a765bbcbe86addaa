"""An A/B test as the example runs it: a population asks the evaluation questions, the evaluator judges, the verdict says which is better."""

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


def counted(up: Up, name: str) -> int:
    """Units that the experiment's statistics hold."""
    verdict = penstock(up, "experiments", "status", name)["verdict"]
    return sum(int(arm["units"]) for arm in verdict["arms"])


def test_the_better_version_is_found_and_told(up: Up) -> None:
    penstock(up, "experiments", "create", "-f", str(ROOT / "examples/support_bot/ab.yaml"))
    penstock(up, "experiments", "start", "support-bot-1-1")
    asked: dict[str, dict[str, int]] = {}
    for seed in range(1, 13):  # an always-valid test may be looked at as often as one likes
        for arm, found in populate(up, 300, seed).items():
            known = asked.setdefault(arm, {"right": 0, "asked": 0})
            known["right"] += found["right"]
            known["asked"] += found["asked"]
        until(lambda so_far=300 * seed: counted(up, "support-bot-1-1") >= so_far * 0.99 or None, 30)  # type: ignore[misc]
        status = penstock(up, "experiments", "status", "support-bot-1-1")
        if status["verdict"]["state"] == "better":
            break
    assert set(asked) == {"support-bot-1-1/control", "support-bot-1-1/treatment"}, asked
    assert status["verdict"]["state"] == "better", (asked, status["verdict"])
    told = [c for c in status["verdict"]["comparisons"] if c["primary"]]
    assert told[0]["lower"] > 0
    with httpx.Client(base_url=up.control, timeout=30) as browser:
        browser.post("/sign-in", data={"key": up.secret("admin.key")}, follow_redirects=True)
        page = browser.get("/experiments/support-bot-1-1")
    assert page.status_code == 200
    for reason in status["verdict"]["reasons"]:
        assert reason.split(".")[0][:40].replace("'", "&#39;") in page.text


def test_the_same_version_twice_gives_no_winner(up: Up) -> None:
    running = penstock(up, "experiments", "status", "support-bot-1-1")
    if running["state"] in ("running", "paused"):
        penstock(up, "experiments", "stop", "support-bot-1-1")
    penstock(up, "experiments", "create", "-f", str(ROOT / "examples/support_bot/aa.yaml"))
    penstock(up, "experiments", "start", "support-bot-aa")
    populate(up, 600, 99)
    until(lambda: counted(up, "support-bot-aa") >= 594 or None, 30)
    verdict = penstock(up, "experiments", "status", "support-bot-aa")["verdict"]
    assert verdict["state"] in ("running", "no_difference"), verdict
    penstock(up, "experiments", "stop", "support-bot-aa")
