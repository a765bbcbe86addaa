"""The grammar of the phrasing files."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.support_bot import grammar


def every(line: str, draws: int = 400) -> set[str]:
    rng = random.Random(0)
    choice = grammar.parse(line)
    return {grammar.expand(choice, rng) for _ in range(draws)}


def test_alternatives_nest_and_may_be_empty() -> None:
    assert every("(please |)cancel (it|my (order|parcel))") == {
        f"{start}cancel {what}" for start in ("please ", "") for what in ("it", "my order", "my parcel")
    }


def test_count_is_the_number_of_texts() -> None:
    assert grammar.count(grammar.parse("(a|b|)(c|d(e|f))")) == 9


def test_slots_stay_and_spaces_are_tidied() -> None:
    assert every("where is (order|) {order} ?") == {"where is order {order}?", "where is {order}?"}
    assert grammar.slots("{name}: {order} and {order}") == {"name", "order"}


def test_a_bar_outside_of_parentheses_is_text() -> None:
    assert every("a|b") == {"a|b"}


@pytest.mark.parametrize("line", ["(a|b", "a)b", "((a)"])
def test_a_parenthesis_without_partner_is_named(line: str) -> None:
    with pytest.raises(grammar.GrammarError, match="without"):
        grammar.parse(line)


@given(st.text(alphabet="ab {}", max_size=30))
def test_text_without_parentheses_stands_for_itself(line: str) -> None:
    assert grammar.expand(grammar.parse(line), random.Random(0)) == grammar.tidy(line)
    assert grammar.count(grammar.parse(line)) == 1
