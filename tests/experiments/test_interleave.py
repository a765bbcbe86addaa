"""Team-draft interleaving, and the test of a preference."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.experiments.interleave import drafted, parts_of, team_draft
from penstock.experiments.preference import log_evidence, preferred
from penstock.experiments.sample_size import plan_votes

ITEMS = st.lists(st.sampled_from([f"item {n}" for n in range(12)]), unique=True, max_size=8)


@given(ITEMS, ITEMS, st.integers(0, 1 << 30))
def test_a_draft_takes_turns_and_no_item_twice(one: list[str], other: list[str], seed: int) -> None:
    found = team_draft(one, other, random.Random(seed).random)
    items = [item for item, _ in found]
    assert len(set(items)) == len(items)
    assert len(found) == max(len(one), len(other))
    for item, team in found:
        assert item in (one, other)[team]
    for team, mine in ((0, one), (1, other)):  # each team's picks keep their order
        places = [mine.index(item) for item, whose in found if whose == team]
        assert places == sorted(places)
    if len(one) == len(other) and not set(one) & set(other):
        assert abs(sum(team for _, team in found) - len(found) / 2) <= 1


def test_a_list_is_put_together_from_two() -> None:
    one = "Here is what helps:\n\n1. Sleep\n2. Water\n   and more of it\n3. Salt\n\nGood luck!"
    other = "Try:\n- water, and more of it\n- Rest\n- Tea"
    parts = parts_of(one)
    assert parts is not None
    assert (parts.kind, parts.head, parts.items) == (
        "numbers", "Here is what helps:", ("Sleep", "Water\n   and more of it", "Salt"),
    )  # fmt: skip
    found = drafted(one, other, lambda: 0.1)  # the first answer picks first in every round
    assert found is not None
    assert found.text == "Here is what helps:\n\n1. Sleep\n2. water, and more of it\n3. Salt"
    assert found.teams == (0, 1, 0)


def test_paragraphs_are_drafted_and_what_has_no_parts_is_not() -> None:
    found = drafted("One.\n\nTwo.", "Three.\n\nFour.", lambda: 0.9)
    assert found is not None
    assert (found.text, found.teams) == ("Three.\n\nOne.", (1, 0))
    assert drafted("Just this.", "And that.\n\nAnd more.", lambda: 0.1) is None
    assert drafted("- a\n- b", "One.\n\nTwo.", lambda: 0.1) is None
    assert drafted("- a\n- b", "- a\n- b", lambda: 0.1) is not None  # both teams have picked one


def test_a_preference_is_found_with_the_votes_that_are_promised() -> None:
    assert plan_votes(0.05).fixed == 783
    draw = random.Random(11)
    found = []
    for _ in range(120):
        won = 0
        for count in range(1, 1301):
            won += draw.random() < 0.55
            if count % 10 == 0 and log_evidence(won, count - won, 0.5, 0.05) >= math.log(20):
                found.append(count)
                break
    assert len(found) / 120 >= 0.78


def test_the_interval_is_what_the_evidence_does_not_speak_against() -> None:
    for won, lost in ((0, 0), (3, 1), (60, 20), (0, 40), (500, 400)):
        found = preferred(won, lost, effect=0.05, alpha=0.05)
        assert found.low <= found.value <= found.high
        for share in (0.001, 0.2, 0.5, 0.7, 0.999):
            inside = found.low < share < found.high
            assert inside == (log_evidence(won, lost, share, 0.05) < math.log(20)) or abs(share - found.value) < 1e-6
    assert preferred(60, 20, effect=0.05, alpha=0.05).low > 0.5
    assert preferred(0, 40, effect=0.05, alpha=0.05).high == pytest.approx(0.0, abs=0.2)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 0.4))
def test_both_sides_are_treated_alike(won: int, lost: int, effect: float) -> None:
    one, other = (preferred(a, b, effect=effect, alpha=0.05) for a, b in ((won, lost), (lost, won)))
    assert one.low == pytest.approx(1 - other.high, abs=1e-9)
    assert one.log_e == pytest.approx(other.log_e, abs=1e-9)
