"""How experiments end beside their verdicts: hooks to the deployment, the kill switch; and what is taken away of them."""

import csv
import io
from typing import Any

import pytest

from penstock.control.context import SYSTEM
from penstock.control.experiments.life import experiment_entries, register
from penstock.experiments.design import parse_design
from tests.control.bed import Bed, exchange
from tests.control.house import eventually
from tests.control.test_canaries import NEW, OLD, Lived, lived  # noqa: F401 - a fixture
from tests.control.test_deployments import served


def versions(incumbent: str, other: str, **changes: Any) -> dict[str, Any]:
    """An A/B test of two versions; the arm called canary is the one that `Lived.serve` lets fail."""
    return {
        "strategy": "ab",
        "hypothesis": "it is better",
        "route": "support-bot",
        "unit": "request",
        "control": incumbent,
        "arms": [
            {"name": incumbent, "build": f"support-bot:{OLD}"},
            {"name": other, "build": f"support-bot:{NEW}"},
        ],
        "primary": {"metric": "error_rate", "minimum_effect": 0.1},
        **changes,
    }


async def run(lived: Lived, spec: dict[str, Any], blocked: str = "") -> dict[str, Any]:  # noqa: F811
    """The experiment, run to its end; half of the requests of the arm called canary fail. `blocked`: a label, once it has started."""
    await lived.house.post("/experiments", {"name": "trial", "spec": spec})
    await lived.house.post("/experiments/trial/start", status=200)
    if blocked:
        await lived.house.post("/blocks", {"model": "support-bot", "label": blocked, "reason": "its licence"})
    await eventually(lambda: lived.experiment() is not None)
    for _ in range(10):
        lived.clock[0] += 5
        await lived.serve(200, failing=0.5)
        told: dict[str, Any] = await lived.house.get("/experiments/trial")
        if told["state"] == "decided":
            return told
    raise AssertionError(told["verdict"])


async def test_a_win_promotes(lived: Lived) -> None:  # noqa: F811
    told = await run(lived, versions("canary", "better", hooks={"win": "promote"}))
    assert told["verdict"]["state"] == "better"
    assert told["decision"]["reasons"][-1] == f"support-bot:{NEW} was promoted to production (revision 2)."
    await eventually(lambda: served(lived.house.publisher.current) == f"support-bot:{NEW}")
    [newest, _] = await lived.house.get("/models/support-bot/history")
    assert (newest["action"], newest["principal"], newest["reason"]) == (
        "promote",
        "penstock",
        "It won the experiment trial.",
    )


async def test_a_loss_blocks_and_what_may_not_be_done_is_said(lived: Lived) -> None:  # noqa: F811
    told = await run(lived, versions("steady", "canary", hooks={"loss": "block", "win": "promote"}))
    assert (told["verdict"]["state"], told["serving"]) == ("worse", "steady")
    assert told["decision"]["reasons"][-1] == f"support-bot:{NEW} is blocked in production until somebody clears it."
    refused = await lived.house.post("/promote", {"model": "support-bot", "label": NEW}, 409)
    assert refused["error"]["code"] == "version_blocked"
    metrics = (await lived.house.admin.get("/metrics")).text
    assert 'penstock_experiments_ended_total{result="worse",route="support-bot"} 1.0' in metrics
    assert 'penstock_experiments_ended_total{result="harm",route="support-bot"} 0.0' in metrics


async def test_a_win_of_a_version_that_was_blocked_meanwhile_is_told_and_promotes_nothing(lived: Lived) -> None:  # noqa: F811
    told = await run(lived, versions("canary", "better", hooks={"win": "promote"}), blocked=NEW)
    assert told["decision"]["reasons"][-1].startswith(f"support-bot:{NEW} could not be promoted in production: ")
    assert served(lived.house.publisher.current) == f"support-bot:{OLD}"


async def test_a_loss_rolls_back_what_is_live(lived: Lived) -> None:  # noqa: F811
    reply = await lived.house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": NEW})
    assert reply.json()["state"] == "live"
    told = await run(lived, versions("steady", "canary", hooks={"loss": "roll_back"}))
    said = f"support-bot:{NEW} was rolled back in production to {OLD}, and is blocked until somebody clears it."
    assert told["decision"]["reasons"][-1] == said
    await eventually(lambda: served(lived.house.publisher.current) == f"support-bot:{OLD}")


async def test_who_may_not_deploy_starts_nothing_that_deploys(lived: Lived) -> None:  # noqa: F811
    made = await lived.house.post("/keys", {"name": "ann", "roles": ["analyst"]})
    await lived.house.post("/experiments", {"name": "trial", "spec": versions("a", "b", hooks={"win": "promote"})})
    async with lived.house.client(made["key"]) as analyst:
        refused = await analyst.post("/api/v1/experiments/trial/start")
    assert refused.status_code == 403
    assert "deployments:write" in refused.json()["error"]["message"]


async def test_who_may_not_give_a_route_its_policy_gives_none_to_its_requests(lived: Lived) -> None:  # noqa: F811
    made = await lived.house.post("/keys", {"name": "ann", "roles": ["analyst"]})
    await lived.house.post("/policies", {"name": "lax", "spec": {}})
    spec = versions("a", "b")
    spec["arms"][1]["policy"] = "lax"
    await lived.house.post("/experiments", {"name": "trial", "spec": spec})
    async with lived.house.client(made["key"]) as analyst:
        refused = await analyst.post("/api/v1/experiments/trial/start")
        assert refused.status_code == 403
        del spec["arms"][1]["policy"]
        assert (await analyst.post("/api/v1/experiments", json={"name": "trial", "spec": spec})).status_code == 201
        assert (await analyst.post("/api/v1/experiments/trial/start")).status_code == 200


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"strategy": "shadow", "primary": {"metric": "cost", "minimum_effect": 0.1}}, "spec.hooks.win"),
        ({"arms": [{"name": "a", "pool": "p"}, {"name": "b", "build": "bot:v1"}]}, "spec.arms[0].build"),
        ({"arms": [{"name": "a", "build": "bot@production"}, {"name": "b", "build": "bot:v1"}]}, "spec.arms[0].build"),
        ({"arms": [{"name": "a", "build": "bot:v1"}, {"name": "b", "build": "cat:v1"}]}, "spec.arms"),
        (
            {"arms": [{"name": "a", "build": "bot:v1"}, {"name": "b", "build": "bot:v2", "params": {"seed": 1}}]},
            "spec.arms[1]",
        ),
    ],
)
async def test_hooks_that_could_not_do_what_they_say_are_refused(bed: Bed, changes: dict[str, Any], param: str) -> None:
    spec = versions("a", "b", hooks={"win": "promote"}) | changes
    spec["control"] = ""
    refused = await bed.call("POST", "/experiments", {"name": "x", "spec": spec})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


# -- by hand, on adopted pools ------------------------------------------------------------------------------------------

AB: dict[str, Any] = {
    "strategy": "ab",
    "hypothesis": "it is better",
    "route": "bot",
    "arms": [{"name": "control", "pool": "old"}, {"name": "treatment", "pool": "new"}],
    "primary": {"metric": "success", "minimum_effect": 0.1},
    "guardrails": [{"metric": "error_rate"}],
}


async def test_the_kill_switch_puts_all_traffic_on_the_control_until_it_is_archived(bed: Bed) -> None:
    await bed.begin(AB)
    killed = (await bed.call("POST", "/experiments/e/kill", {"reason": "a customer called"})).json()
    assert (killed["state"], killed["serving"], killed["actions"]) == ("decided", "control", ["archive"])
    assert killed["decision"]["reasons"] == ["Killed by admin: a customer called."]
    async with bed.control.database.read() as connection:
        entry = (await experiment_entries(connection))["bot"]
    assert [(arm.name, arm.weight) for arm in entry.arms] == [("control", 1.0)]
    assert (await bed.call("POST", "/experiments/e/kill")).status_code == 409
    assert (await bed.call("POST", "/experiments/e/archive")).json()["serving"] is None


async def test_all_are_killed_in_one_change(bed: Bed) -> None:
    await bed.begin(AB, "one")
    await bed.begin(AB | {"route": "other"}, "two")
    assert (await bed.call("POST", "/experiments/two/pause")).status_code == 200
    async with bed.control.change(SYSTEM) as change:
        await register(change, "draft", parse_design(AB))
    assert (await bed.call("POST", "/experiments/kill", {"reason": "all of them"})).json() == {"killed": ["one", "two"]}
    states = {one["name"]: one["state"] for one in (await bed.call("GET", "/experiments")).json()["experiments"]}
    assert states == {"one": "decided", "two": "decided", "draft": "draft"}
    assert (await bed.call("POST", "/experiments/kill")).json() == {"killed": []}
    assert (await bed.call("POST", "/experiments/kill", key="nobody")).status_code == 401


async def test_what_is_exported_is_all_there_is(bed: Bed) -> None:
    await bed.begin(AB)
    records = [
        exchange(number, experiment="e", epoch=1, unit=f"u{number}", arm=("control", "treatment")[number % 2])
        for number in range(60)
    ]
    assert (await bed.send(records)).status_code == 200
    await bed.evaluator.round()
    got = await bed.call("GET", "/experiments/e/export")
    assert got.headers["content-disposition"] == 'attachment; filename="e.json"'
    document = got.json()
    assert document["spec"]["arms"] == [{"name": "control", "pool": "old"}, {"name": "treatment", "pool": "new"}]
    assert {one["metric"] for one in document["points"]} >= {"error_rate", "cost", "latency"}
    tables = {}
    for table in ("comparisons", "points", "arms", "guardrails", "epochs"):
        sheet = await bed.call("GET", "/experiments/e/export", format="csv", table=table)
        assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
        tables[table] = list(csv.DictReader(io.StringIO(sheet.text)))
    assert [(row["arm"], row["units"]) for row in tables["arms"]] == [("control", "30"), ("treatment", "30")]
    [found] = [row for row in tables["comparisons"] if row["metric"] == "error_rate"]
    [wanted] = [one for one in document["verdict"]["comparisons"] if one["metric"] == "error_rate"]
    assert (float(found["estimate"]), float(found["upper"])) == (wanted["estimate"], wanted["upper"])
    assert len(tables["points"]) == len(document["points"])
    assert [(row["epoch"], row["arm"], row["share"]) for row in tables["epochs"]] == [
        ("1", "control", "0.5"),
        ("1", "treatment", "0.5"),
    ]
    assert (await bed.call("GET", "/experiments/e/export", format="csv", table="x")).status_code == 400
    assert (await bed.call("GET", "/experiments/none/export")).status_code == 404
