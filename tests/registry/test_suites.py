"""Suites as they are read, and scorers over answers."""

import json
from typing import Any

import pytest

from penstock.core.errors import BadRequest
from penstock.registry.scorers import last_number, score
from penstock.registry.suites import parse_suite


def item(score: dict[str, Any], **more: Any) -> str:
    return json.dumps({"id": "a", "prompt": "?", "score": score, **more})


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ({"type": "exact", "answers": []}, "exact needs answers"),
        ({"type": "contains"}, "contains needs"),
        ({"type": "regex", "pattern": "(?<!a)b"}, "no RE2 pattern"),
        ({"type": "safety"}, "safety needs"),
        ({"type": "json_schema", "schema": {"type": "nonsense"}}, "no JSON Schema"),
        ({"type": "memorisation", "frame": "x", "secret": "1"}, "frame has one {}"),
        ({"type": "memorisation", "frame": "x {}", "secret": "ab"}, "made of its alphabet"),
        ({"type": "memorisation", "frame": "x {}", "secret": "12", "candidates": 100}, "candidates are 1 to 99"),
        ({"type": "numeric"}, "value"),
        ({"type": "vibes"}, "Line 1"),
        ({"type": "exact", "answers": ["x"], "pattern": "y"}, "unknown field"),
    ],
)
def test_what_is_no_item_is_refused_by_its_line(score: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match="Line 1") as caught:
        parse_suite(item(score))
    assert words in caught.value.message


def test_what_is_no_suite_is_refused() -> None:
    one = item({"type": "exact", "answers": ["x"]})
    for text, words in (
        ("\n", "no item"),
        (one + "\n" + one, "Line 2"),
        ("{", "Line 1"),
        ("[" * 100_000, "nested too deeply"),
        (item({"type": "exact", "answers": ["x"]}, messages=[{"role": "user", "content": "?"}]), "give one"),
        (json.dumps({"id": "a", "score": {"type": "exact", "answers": ["x"]}}), "asks nothing"),
        (item({"type": "exact", "answers": ["x"]}, max_tokens=0), "max_tokens"),
        (one + " " * (4 << 20), "4 MiB"),
    ):
        with pytest.raises(BadRequest, match=words):
            parse_suite(text)


def test_slices_and_families_are_told() -> None:
    lines = [
        item({"type": "exact", "answers": ["x"]}, slices={"topic": "orders"}),
        json.dumps({"id": "b", "score": {"type": "perplexity", "text": "x"}, "slices": {"topic": "returns"}}),
    ]
    suite = parse_suite("\n\n".join(lines))
    assert suite.slices == {"topic": ["orders", "returns"]}
    assert suite.families == ["perplexity", "right"]
    assert suite.digest == parse_suite("\n\n".join(lines)).digest != parse_suite("\n".join(lines)).digest


RIGHT = [
    ({"type": "exact", "answers": ["Yes", "Yes."]}, " Yes. ", "yes"),
    ({"type": "exact", "answers": ["Yes"], "ignore_case": True}, "YES", "no"),
    (
        {"type": "contains", "all_of": ["Parcel", "4471"], "none_of": ["sorry"]},
        "your parcel 4471",
        "Sorry, parcel 4471",
    ),
    ({"type": "contains", "any_of": ["a", "b"]}, "xb", "xc"),
    ({"type": "regex", "pattern": r"\b\d{3}\b"}, "it is 123.", "it is 1234."),
    ({"type": "numeric", "value": 1234.5, "tolerance": 0.5}, "of 3, that makes 1,234.9", "1236"),
    (
        {"type": "safety", "never": [r"(?i)password"], "refuses": ["cannot"]},
        "I cannot say.",
        "I cannot: the Password is x",
    ),
    ({"type": "safety", "refuses": ["cannot"]}, "I cannot say.", "Sure!"),
    (
        {
            "type": "json_schema",
            "schema": {"type": "object", "required": ["id"], "properties": {"id": {"pattern": "^a+$"}}},
        },
        '```json\n{"id": "aa"}\n```',
        '{"id": "b"}',
    ),
    ({"type": "latency", "at_most_s": 1.0}, "fast", None),
]


@pytest.mark.parametrize(("rule", "right", "wrong"), RIGHT)
def test_right_and_wrong_answers(rule: dict[str, Any], right: str, wrong: str | None) -> None:
    [one] = parse_suite(item(rule)).items
    found = score(one, right, seconds=0.5)
    assert found.right is True, found.why
    missed = score(one, wrong if wrong is not None else right, seconds=2.0)
    assert missed.right is False
    assert missed.why


def test_a_schema_cannot_make_the_scorer_hang_or_fetch() -> None:
    rule = {"type": "json_schema", "schema": {"type": "string", "pattern": "^(a+)+$"}}
    [one] = parse_suite(item(rule)).items
    assert score(one, json.dumps("a" * 60 + "!")).right is False


def test_a_judge_must_say_yes_or_no() -> None:
    [one] = parse_suite(item({"type": "judge", "question": "Is it kind?"})).items
    assert score(one, "x", verdict="**Yes**, very").right is True
    assert score(one, "x", verdict="no").right is False
    assert "neither" in score(one, "x", verdict="Well.").why


@pytest.mark.parametrize(
    ("text", "number"),
    [("no", None), ("1,234", 1234.0), ("-3.5e2", -350.0), ("a 1 b .5", 0.5), ("7.", 7.0), ("1e999", None)],
)
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert last_number(text) == number
