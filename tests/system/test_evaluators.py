"""Evaluators with the starter models, as their page shows them: accuracy per arm, vectors of the shipped embedder, a judge, and control killed meanwhile."""

import json
import os
import signal
from typing import Any

import httpx
import pytest

from penstock.supervisor.records import Records
from tests.system.program import penstock
from tests.system.starter import ROOT, Up
from tests.system.test_ab import split
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(300)]

SHOP = ROOT / "examples" / "support_bot"
QUESTIONS = [json.loads(line)["question"] for line in (SHOP / "references.jsonl").read_text().splitlines()]
NAMES = ("shop-facts", "fits-the-question", "clean-words", "says-it-briefly", "which-is-better")


def read(up: Up, path: str) -> Any:
    """What control's API says."""
    headers = {"authorization": f"Bearer {up.secret('admin.key')}"}
    return httpx.get(f"{up.control}/api/v1{path}", headers=headers, timeout=30).json()


def coverage(up: Up, name: str) -> dict[str, dict[str, Any]]:
    """What the evaluator says of the experiment, by arm."""
    told = read(up, f"/evaluators/{name}/coverage")
    return {row["arm"]: row for row in told["coverage"] if row["experiment"] == "support-bot-short"}


def seen(up: Up, name: str) -> int:
    return sum(row["drawn"] for row in coverage(up, name).values())


def compared(up: Up) -> int:
    """Of how many pairs the judge has said something, be it nothing that can be read: the starter is too small to judge."""
    return sum(row["drawn"] - row["results"].get("unpaired", 0) for row in coverage(up, "which-is-better").values())


def kill_control(up: Up) -> None:
    """SIGKILL, and until another one answers."""
    records = Records(up.data / "run")
    (record,) = [one for one in records.all() if one.spec.kind == "control" and records.lives(one)]
    os.kill(record.pid, signal.SIGKILL)
    with httpx.Client(base_url=up.control, timeout=5) as http:

        def back() -> bool | None:
            try:
                return http.get("/readyz").status_code == 200 or None
            except httpx.HTTPError:
                return None

        until(lambda: not records.lives(record) or None, 20)
        until(back, 60)


def test_answers_are_scored_once_in_their_arms(up: Up) -> None:
    pushed = penstock(up, "references", "push", str(SHOP / "references.jsonl"), "shop-facts")
    assert pushed["items"] == len(QUESTIONS)
    penstock(up, "apply", "-f", str(SHOP / "evaluators.yaml"))
    penstock(up, "experiments", "create", "-f", str(SHOP / "scored.yaml"))
    penstock(up, "experiments", "start", "support-bot-short")
    split(up, "scored-bot", "support-bot-short")
    asked: dict[str, int] = {}
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    with httpx.Client(base_url=up.gateway, headers=headers, timeout=60) as http:
        assert "(evaluators)" not in http.get("/v1/models").text
        private = {"model": "(evaluators)/which-is-better", "messages": [{"role": "user", "content": "hello"}]}
        assert http.post("/v1/chat/completions", json=private).status_code == 404
        for number in range(2 * len(QUESTIONS)):
            messages = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
            body: dict[str, Any] = {
                "model": "scored-bot",
                "messages": messages,
                "user": f"asker-{number}",
                "temperature": 0,
            }
            reply = http.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            arm = reply.headers["x-penstock-arm"].partition("/")[2]
            asked[arm] = asked.get(arm, 0) + 1
            if number == 20:
                kill_control(up)
    total = sum(asked.values())
    # The user of `split` asked too, and what it asked has no reference.
    until(lambda: seen(up, "shop-facts") > total or None, 60)
    facts = coverage(up, "shop-facts")
    assert {arm: row["told"] for arm, row in facts.items()} == asked
    for name in ("fits-the-question", "clean-words", "says-it-briefly"):
        until(lambda name=name: seen(up, name) > total or None, 60)  # type: ignore[misc]
        assert sum(row["told"] for row in coverage(up, name).values()) == seen(up, name) == total + 1
    told = until(lambda: _with_values(up, total + 1), 60, 0.2)
    named = {one["metric"]: one for one in told["verdict"]["comparisons"]}
    assert named["accuracy"]["control_value"] > 0.7 > 0.4 > named["accuracy"]["value"]
    assert named["toxicity"]["value"] == named["toxicity"]["control_value"] == 0
    assert named["brevity"]["value"] > 0.9
    counted = sum(arm["units"] for arm in told["verdict"]["arms"])
    assert counted == total + 1  # no call of an evaluator is a unit

    until(lambda: compared(up) >= 2 or None, 60)
    shown = penstock(up, "evaluators", "show", "which-is-better")
    assert shown["calls"] >= 2 and not shown["errors"] and shown["spec"]["compare"]["model"] == "support-bot"
    fits = read(up, "/evaluators/fits-the-question/coverage")
    assert fits["calls"] > total and fits["prompt_tokens"] > 0
    with httpx.Client(base_url=up.control, headers={"authorization": f"Bearer {up.secret('admin.key')}"}) as api:
        metrics = api.get("/metrics").text
        assert f'penstock_evaluator_results_total{{evaluator="shop-facts",result="scored"}} {total}.0' in metrics
        assert 'penstock_evaluator_behind_seconds{evaluator="shop-facts"}' in metrics
        judged = api.get("/api/v1/experiments/support-bot-short/evaluators").json()["evaluators"]
        assert sorted(one["evaluator"] for one in judged) == sorted(NAMES)
        assert api.post("/api/v1/experiments/support-bot-short/stop", json={}).status_code == 200
        for name in NAMES:
            assert api.delete(f"/api/v1/evaluators/{name}").status_code == 204


def _with_values(up: Up, answers: int) -> dict[str, Any] | None:
    """The experiment, once its verdict knows of as many answers' relevance, and of all metrics."""
    status: dict[str, Any] = read(up, "/experiments/support-bot-short")
    named = {one["metric"]: one for one in status["verdict"]["comparisons"]}
    wanted = [named.get(name, {}) for name in ("accuracy", "relevance", "toxicity", "brevity")]
    if any(one.get("value") is None or one.get("control_value") is None for one in wanted):
        return None
    return status if wanted[1]["n"] + wanted[1]["control_n"] == answers else None
