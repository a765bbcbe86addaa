"""Suites that lm-evaluation-harness asks: what they may say, the command line, and its result files read."""

import json
from typing import Any

import pytest

from penstock.core.errors import BadRequest
from penstock.registry.harness import Harness, arguments_of, read_samples
from penstock.registry.suites import parse_suite

NAME = "samples_capitals_2026-11-23T09-30-00.123456.jsonl"


def suite(**more: Any) -> str:
    return json.dumps({"runner": "lm-eval", "tasks": ["capitals"], **more})


def harness(**more: Any) -> Harness:
    made = parse_suite(suite(**more)).harness
    assert made is not None
    return made


def sample(number: int, **more: Any) -> str:
    return json.dumps(
        {
            "doc_id": number,
            "filtered_resps": ["Paris"],
            "filter": "none",
            "metrics": ["exact_match"],
            "exact_match": 1.0,
            **more,
        }
    )


def test_a_suite_names_a_runner() -> None:
    made = parse_suite(suite(limit=5))
    assert made.items == ()
    assert made.families == ["right"]
    assert made.slices == {"task": ["capitals"]}
    assert made.digest != parse_suite(suite(limit=6)).digest


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tasks": []}, "tasks"),
        ({"tasks": ["../x"]}, "tasks"),
        ({"tasks": ["a b"]}, "tasks"),
        ({"runner": "sh"}, "runner"),
        ({"shell": "true"}, "shell"),
        ({"limit": 0}, "limit"),
        ({"at_most_s": 1e9}, "at_most_s"),
        ({"files": {"../x.yaml": ""}}, "files"),
        ({"files": {"utils.py": "import os"}}, "files.utils.py"),
        ({"files": {"t.yaml": "doc_to_text: !function utils.x"}}, "functions of Python"),
    ],
)
def test_what_is_wrong_is_named(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        parse_suite(suite(**more))


def test_items_beside_a_runner_are_refused() -> None:
    with pytest.raises(BadRequest):
        parse_suite(suite() + "\n" + suite())


def test_the_command_line() -> None:
    line = arguments_of(
        harness(limit=5, shots=2, files={"t.yaml": "task: capitals"}), url="http://127.0.0.1:1", folder="/t", output="/o", seed=7
    )  # fmt: skip
    told = " ".join(line)
    assert "--model local-completions" in told
    assert "base_url=http://127.0.0.1:1/v1/completions" in told
    assert told.endswith("--output_path /o --log_samples --include_path /t --limit 5")
    assert "--tasks capitals --num_fewshot 2 --seed 7" in told
    chat = " ".join(arguments_of(harness(api="chat"), url="http://h:1", folder="/t", output="/o", seed=7))
    assert "local-chat-completions" in chat
    assert chat.endswith("--apply_chat_template")
    assert "--include_path" not in chat


def test_samples_become_answers() -> None:
    text = "\n".join([sample(0), sample(1, exact_match=0.0), sample(1, filter="strict", exact_match=1.0)])
    found = read_samples(harness(), {NAME: text, "results_2026.json": "{}"})
    assert [(one.id, one.right, one.answer) for one in found] == [
        ("capitals/0", True, "Paris"),
        ("capitals/1", False, "Paris"),
    ]
    strict = read_samples(harness(filter="strict"), {NAME: text})
    assert [(one.id, one.right) for one in strict] == [("capitals/1", True)]


@pytest.mark.parametrize(
    ("files", "more", "words"),
    [
        ({}, {}, "no question"),
        ({NAME: "not json"}, {}, "line 1"),
        ({NAME: "[" * 100_000}, {}, "line 1"),
        ({NAME: sample(0)}, {"metric": "f1"}, "no metric f1, but exact_match"),
        ({NAME: sample(0, exact_match=0.5)}, {}, "right .1. or wrong"),
        ({NAME: sample(0)}, {"filter": "other"}, "no question"),
    ],
)
def test_results_that_do_not_count_are_told(files: dict[str, str], more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read_samples(harness(**more), files)
