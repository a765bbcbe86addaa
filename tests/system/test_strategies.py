"""A bandit, a shadow and an interleaved experiment as their pages run them: the starter models, a population of customers, a verdict."""

from typing import Any

import pytest

from tests.system.program import penstock
from tests.system.starter import ROOT, Up
from tests.system.test_ab import populate, split, standing
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(600)]


def begin(up: Up, file: str, name: str) -> None:
    for running in penstock(up, "experiments", "list")["experiments"]:
        if running["route"] == "support-bot" and running["state"] in ("running", "paused"):
            penstock(up, "experiments", "stop", running["name"])
    penstock(up, "experiments", "create", "-f", str(ROOT / "examples/support_bot" / file))
    penstock(up, "experiments", "start", name)
    split(up, "support-bot", name)


def status_when(up: Up, name: str, so: Any) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        status = standing(up, name)
        return status if so(status) else None

    until(look, 60, 0.2)
    return penstock(up, "experiments", "status", name)


def test_a_bandit_sends_more_and_more_where_answers_are_right(up: Up) -> None:
    begin(up, "bandit.yaml", "support-bot-bandit")
    for seed in range(3):
        populate(up, 60, 100 + seed)
        told = status_when(
            up,
            "support-bot-bandit",
            lambda status, seed=seed: status["epoch"] >= seed + 2 or status["state"] == "decided",
        )
        if told["state"] == "decided":
            break
    chances = {one["arm"]: one for one in told["verdict"]["contenders"]}
    assert set(chances) == {"control", "larger", "bolder"}
    assert chances["control"]["chance"] < 0.2, chances  # the small model answers far fewer questions right
    shares = told["epochs"][-1]["shares"]
    assert shares["control"] < 0.3, told["epochs"]
    assert min(shares.values()) >= 0.02
    if told["state"] == "decided":
        assert told["serving"] in ("larger", "bolder"), told["verdict"]
    else:
        penstock(up, "experiments", "stop", "support-bot-bandit")


def test_a_shadow_is_compared_and_no_customer_sees_it(up: Up) -> None:
    begin(up, "shadow.yaml", "support-bot-shadow")
    asked = populate(up, 80, 200)
    assert "support-bot-shadow/control" in asked
    assert "support-bot-shadow/candidate" not in asked
    told = status_when(
        up, "support-bot-shadow",
        lambda status: status["state"] == "decided" or any(c["primary"] and c["lower"] is not None for c in status["verdict"]["comparisons"]),
    )  # fmt: skip
    named = {one["metric"]: one for one in told["verdict"]["comparisons"]}
    assert named["completion_tokens"]["n"] >= 20
    assert 0 < named["similarity"]["value"] < 1
    assert named["latency"]["n"] >= 20
    ahead = {one["metric"]: one for one in told["verdict"]["forecasts"]}
    assert ahead["latency"]["lower"] < ahead["latency"]["estimate"] < ahead["latency"]["upper"]
    if told["state"] == "running":
        penstock(up, "experiments", "stop", "support-bot-shadow")


def test_customers_who_see_both_answers_prefer_the_better_model(up: Up) -> None:
    begin(up, "interleaved.yaml", "support-bot-interleaved")
    for seed in range(6):
        populate(up, 60, 300 + seed)
        told = status_when(
            up, "support-bot-interleaved",
            lambda status, seed=seed: status["state"] == "decided" or sum(v["won"] + v["lost"] + v["ties"] for v in status["verdict"].get("votes", [])) >= 15 * (seed + 1),
        )  # fmt: skip
        if told["state"] == "decided":
            break
    (votes,) = told["verdict"]["votes"]
    assert votes["won"] > votes["lost"], votes
    assert votes["lower"] <= votes["share"] <= votes["upper"]
    assert (told["state"], told["verdict"]["state"]) == ("decided", "better"), told["verdict"]
