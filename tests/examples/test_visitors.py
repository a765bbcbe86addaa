"""Made-up customers' questions, and two versions compared on the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.support_bot.compare import compared, read_each, table
from examples.support_bot.evaluate import Question, judged, questions, write_each
from examples.support_bot.excluded import Excluded
from examples.support_bot.generator import open_corpus
from examples.support_bot.shop import ASK_ORDER, OFF_TOPIC, load_shop
from examples.support_bot.visitors import visitors


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(visitors(open_corpus(), 300, seed=5))


def test_visitors_ask_what_the_evaluator_can_judge_and_nothing_that_it_asks_itself(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "visitors.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked, shop, excluded = questions(file), load_shop(), Excluded.read()
    answers = [shop.intents[q.intent].answer(0, q.facts) for q in asked]
    assert all(score.right for score in judged(asked, answers, shop))
    assert {OFF_TOPIC, ASK_ORDER} < {q.intent for q in asked}
    assert not [q.id for q in asked if excluded.asked(q.turns[-1]["content"], q.facts.values())]
    assert len({q.id for q in asked}) == 300


def test_visitors_are_the_same_for_the_same_seed_and_held_out_ones_are_others(rows: list[dict[str, Any]]) -> None:
    assert list(visitors(open_corpus(), 300, seed=5)) == rows
    held_out = visitors(open_corpus(held_out=True), 300, seed=5)
    assert not {row["turns"][-1]["content"] for row in held_out if len(row["turns"][-1]["content"]) > 30} & {
        row["turns"][-1]["content"] for row in rows
    }


def answered(file: Path, answers: dict[str, str]) -> Path:
    asked = [
        Question(
            id="a",
            intent="track_order",
            turns=[{"role": "user", "content": "where is 4471902"}],
            facts={"order": "4471902"},
        ),
        Question(id="b", intent=OFF_TOPIC, turns=[{"role": "user", "content": "a poem"}], facts={}),
    ]
    shop = load_shop()
    write_each(file, asked, judged(asked, [answers[q.id] for q in asked], shop))
    return file


def test_two_versions_are_compared_on_the_same_questions(tmp_path: Path) -> None:
    shop = load_shop()
    right = shop.intents["track_order"].answer(0, {"order": "4471902"})
    refused = shop.intents[OFF_TOPIC].answer(0, {})
    worse = answered(tmp_path / "worse.jsonl", {"a": refused, "b": right})
    better = answered(tmp_path / "better.jsonl", {"a": right, "b": refused})
    found = compared(read_each(worse), read_each(better))
    assert {name: (one.incumbent, one.candidate, one.pairs) for name, one in found.items()} == {
        "unwanted answers": (1.0, 0.0, 2),
        "in-scope questions answered right": (0.0, 1.0, 1),
        "off-topic questions refused": (0.0, 1.0, 1),
        "in-scope questions wrongly refused": (1.0, 0.0, 1),
        "answers with an invented fact": (0.5, 0.0, 2),
    }
    assert "| unwanted answers | 100.0% | 0.0% | -100.0 |" in table(found)
    assert found["unwanted answers"].low >= -1.0


def test_versions_that_answered_other_questions_are_not_compared(tmp_path: Path) -> None:
    refused = load_shop().intents[OFF_TOPIC].answer(0, {})
    rows = read_each(answered(tmp_path / "one.jsonl", {"a": refused, "b": refused}))
    with pytest.raises(ValueError, match="same questions"):
        compared(rows, rows[:1])
