"""Exported preferences as rows for the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.support_bot.preferences import Pair, arranged, conversations, drawn, laid_out, read_liked, read_pairs
from penstock.control.content.feedback_pairs import preference, supervised


class Words:
    """A tokenizer of whole words: 1 begins an answer, 2 ends it."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        return [*self._ids(" ".join(f"{m['role']} {m['content']}" for m in messages)), 1]

    def answer(self, text: str) -> list[int]:
        return [*self._ids(text), 2]

    def _ids(self, text: str) -> list[int]:
        return [self.known.setdefault(word, len(self.known) + 3) for word in text.split()]


def exported(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    """A line as the export makes it."""
    line = preference([{"role": "user", "content": question}], chosen, rejected, {"request": "r"}, consent=True)
    return {name: value for name, value in line.items() if name != "kind"}


def written(folder: Path, *lines: dict[str, Any]) -> Path:
    file = folder / "preferences.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_lines_of_the_export_become_pairs_each_once(tmp_path: Path) -> None:
    line = exported("where is it", "it is here", "no idea")
    long = exported("where " * 40, "here", "there")
    same = exported("hello", "hi", "hi")
    pairs = read_pairs(written(tmp_path, line, line, long, same), Words(), longest=20)
    assert len(pairs) == 1
    assert (len(pairs[0].prompt), len(pairs[0].chosen), len(pairs[0].rejected)) == (5, 4, 3)
    assert pairs[0].prompt[-1] == 1
    assert pairs[0].chosen[-1] == pairs[0].rejected[-1] == 2


@pytest.mark.parametrize("line", ['{"messages": []}', "not json", '{"prompt": [], "chosen": [], "rejected": []}'])
def test_a_line_that_is_no_preference_is_named(tmp_path: Path, line: str) -> None:
    file = written(tmp_path, exported("a", "b", "c"))
    with file.open("a") as more:
        more.write(line + "\n")
    with pytest.raises(ValueError, match=r"preferences\.jsonl:2 is no preference"):
        read_pairs(file, Words(), longest=20)


def liked(turns: list[dict[str, str]], answer: str) -> dict[str, Any]:
    return supervised([*turns, {"role": "assistant", "content": answer}], {"request": "r"}, consent=True)


def test_answers_that_were_liked_become_examples_each_once(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "where is it"}]
    long = [{"role": "user", "content": "where " * 40}]
    file = written(tmp_path, liked(asked, "it is here"), liked(asked, "it is here"), liked(long, "here"))
    coder = Words()
    (found,) = read_liked(file, coder, longest=20)
    assert (found.prompt, found.answer) == (tuple(coder.prompt(asked)), tuple(coder.answer("it is here")))
    (pair,) = read_pairs(written(tmp_path, exported("where is it", "it is here", "no idea")), coder, longest=20)
    assert (pair.key, pair.watched) == (found.key, found.watched)
    ids, targets, weights = laid_out([(found.prompt, found.answer)])
    assert targets[weights == 1].tolist() == coder.answer("it is here")
    assert ids[0, 0] == found.prompt[0]
    with pytest.raises(ValueError, match=r"preferences\.jsonl:1 is no supervised example"):
        read_liked(written(tmp_path, exported("a", "b", "c")), coder, longest=20)


def test_half_of_the_conversations_are_learnt_without_their_system_prompt(tmp_path: Path) -> None:
    system = {"role": "system", "content": "be kind"}
    lines = [liked([system, {"role": "user", "content": f"question {number}"}], "here") for number in range(200)]
    coder = Words()
    found = read_liked(written(tmp_path, *lines), coder, longest=20)
    bare = [one for one in found if one.prompt[0] != coder.known["system"]]
    assert len(found) == 200
    assert 60 < len(bare) < 140
    assert {len(one.prompt) for one in bare} == {4}


def test_rows_hold_the_chosen_answers_and_then_the_others_and_weigh_answers_alone() -> None:
    pairs = [
        Pair(key="a", prompt=(7, 8, 1), chosen=(9, 2), rejected=(10, 11, 2)),
        Pair(key="b", prompt=(7, 1), chosen=(12, 2), rejected=(13, 2)),
    ]
    ids, targets, weights = arranged(pairs)
    assert ids.tolist() == [[7, 8, 1, 9, 0], [7, 1, 12, 0, 0], [7, 8, 1, 10, 11], [7, 1, 13, 0, 0]]
    assert targets.tolist() == [[8, 1, 9, 2, 0], [1, 12, 2, 0, 0], [8, 1, 10, 11, 2], [1, 13, 2, 0, 0]]
    assert [targets[row][weights[row] == 1].tolist() for row in range(4)] == [[9, 2], [12, 2], [10, 11, 2], [13, 2]]


def test_each_pass_uses_every_pair_once_in_an_order_of_its_own() -> None:
    pairs = list(range(12))
    first = [one for step in range(3) for one in drawn(pairs, 4, step, seed=1)]
    second = [one for step in range(3, 6) for one in drawn(pairs, 4, step, seed=1)]
    assert sorted(first) == sorted(second) == pairs
    assert first != second
    assert drawn(pairs, 4, 5, seed=1) == second[8:]
    assert sorted(drawn(pairs, 99, 0, seed=1)) == pairs


def test_a_conversation_is_watched_or_trained_on_with_all_its_pairs() -> None:
    def pair(number: int, answer: int) -> Pair:
        return Pair(key=f"question {number}", prompt=(number, 1), chosen=(answer, 2), rejected=(0, 2))

    pairs = [pair(number, answer) for number in range(400) for answer in (5, 6)]
    watched = [one for one in pairs if one.watched]
    assert conversations(watched) * 2 == len(watched)
    assert 20 < conversations(watched) < 70
    assert np.array_equal([one.watched for one in pairs[::2]], [one.watched for one in pairs[1::2]])
