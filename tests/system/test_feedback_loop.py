"""What customers say of real answers becomes the rows that dpo.py trains on, by the commands that the example shows."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.support_bot.generator import open_corpus
from examples.support_bot.preferences import arranged, read_liked, read_pairs
from examples.support_bot.shop import load_shop
from examples.support_bot.visitors import visitors
from tests.examples.test_preferences import Words
from tests.system.program import penstock, run_module
from tests.system.starter import ROOT, Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(300)]


def test_consented_ratings_are_exported_as_pairs(up: Up, tmp_path: Path) -> None:
    questions = tmp_path / "visitors.jsonl"
    rows = [json.dumps(row) for row in visitors(open_corpus(), 12, seed=11)]
    questions.write_text("\n".join(rows))
    penstock(up, "apply", "-f", str(ROOT / "examples/support_bot/rated.yaml"))
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    body = {"model": "rated-bot", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    with httpx.Client(base_url=up.gateway, headers=headers, timeout=30) as http:
        until(lambda: http.post("/v1/chat/completions", json=body).status_code == 200 or None, 60)
    asked = wrong = 0
    told_by = ((60, ("--consent",)), (30, ("--consent", "--correct", "1")), (20, ()))
    for users, flags in told_by:  # of what the last ones say nothing may be trained on
        told = run_module(
            "examples.support_bot.population", "--url", up.gateway, "--key", up.secret("demo.key"), "--model", "rated-bot",
            "--questions", str(questions), "--users", str(users), "--temperature", "1", "--seed", str(users), "--json", *flags,
        )  # fmt: skip
        (arm,) = told.values()
        assert 0 < arm["right"] < arm["asked"] == users
        asked += arm["asked"]
        wrong += arm["asked"] - arm["right"] if "--correct" in flags else 0

    attempts = iter(range(100))

    def export() -> dict[str, Any] | None:
        folder = tmp_path / f"feedback-{next(attempts)}"
        summary = penstock(
            up, "feedback", "export", str(folder), "--version", "support-bot:v1.0.0", "--route", "rated-bot"
        )
        return {**summary, "folder": folder} if summary["observations"] == asked else None

    summary = until(export, 60, 0.5)
    lines = [json.loads(line) for line in (summary["folder"] / "preferences.jsonl").read_text().splitlines()]
    assert summary["left_out"]["no_consent"] == 20
    assert len(lines) == summary["preferences"] > 5
    joined = [line for line in lines if line["lineage"]["how"] == "joined"]
    corrected = [line for line in lines if line["lineage"]["how"] == "corrected"]
    assert len(joined) + len(corrected) == len(lines)
    assert all(line["lineage"]["chosen"]["version"] == "support-bot:v1.0.0" for line in joined)
    assert all(line["consent"] for line in lines)
    assert len(corrected) == wrong > 0
    assert {line["prompt"][0]["content"] for line in lines} == {load_shop().system}
    pairs = read_pairs(summary["folder"] / "preferences.jsonl", Words(), longest=500)
    liked = read_liked(summary["folder"] / "supervised.jsonl", Words(), longest=500)
    assert {pair.key for pair in pairs} <= {one.key for one in liked}
    ids, _, weights = arranged(pairs)
    assert len(ids) == 2 * len(pairs) > 5
    assert (weights.sum(-1) > 1).all()
    with httpx.Client(base_url=up.control, headers={"authorization": f"Bearer {up.secret('admin.key')}"}) as api:
        for path in ("routes/rated-bot", "pools/rated", "policies/kept-for-training"):
            assert api.delete(f"/api/v1/{path}").status_code == 204
