"""The check that evaluation questions are new to the model."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from examples.support_bot.evaluate import Question, questions
from examples.support_bot.excluded import Excluded, plain
from examples.support_bot.generator import Turn, conversations, open_corpus
from examples.support_bot.overlap import compare, report


def question(text: str, **facts: str) -> Question:
    return Question(id="q", intent="track_order", turns=[{"role": "user", "content": text}], facts=facts)


def turn(text: str, **slots: str) -> Turn:
    return Turn(question=text, answer="", intent="track_order", slots=slots)


def test_values_are_one_word_and_capitals_and_stops_are_none() -> None:
    assert plain("Where's order AB-12, please?!", ["AB-12"]) == "where's order _ please"


def test_shares_are_of_n_grams() -> None:
    found = compare([question("a b c d e f")], [turn("x a b c d y")])
    assert found.shared == {3: 0.5, 5: 0.0}
    assert found.clean


def test_the_same_words_about_another_number_are_a_duplicate() -> None:
    found = compare([question("where is order 4471?", order="4471")], [turn("Where is order 99", order="99")])
    assert found.duplicates == ("q",)
    assert not found.clean
    assert "word for word: 1 q" in report(found)


def test_a_word_or_two_may_be_the_same() -> None:
    found = compare([question("thank you!")], [turn("Thank you")])
    assert found.clean
    assert found.short == 1


def test_a_shared_value_is_found() -> None:
    found = compare(
        [question("is the Talvo in stock", product="Talvo")], [turn("how big is a talvo then", product="talvo")]
    )
    assert found.values == ("Talvo",)
    assert not found.clean


def test_the_shipped_files_do_not_overlap() -> None:
    if not Path("examples/support_bot/corpus/phrasings").exists():
        pytest.skip("no phrasings in this tree")
    corpus = open_corpus()
    turns = [t for c in itertools.islice(conversations(corpus, 1), 3000) for t in c.turns]
    assert compare(questions(), turns).clean


def test_the_evaluation_set_is_read_whole() -> None:
    assert len(questions()) >= 300
    excluded = Excluded.read()
    assert all(excluded.hit(value) for q in questions() for value in q.facts.values())
