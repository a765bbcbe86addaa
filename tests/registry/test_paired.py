"""Intervals of paired differences: published numbers, and what must hold of all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.registry.paired import enough_pairs, paired_ratio, paired_shares, wilson

counts = st.integers(0, 60)


def test_wilson_is_as_published() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3: 81 of 263 and 1 of 29.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_the_paired_interval_is_as_published() -> None:
    # Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009), an example of Fagerland, Lydersen and Laake,
    # "Statistical Analysis of Contingency Tables", 2017, chapter 8: Newcombe's square-and-add interval is -0.507 to -0.026.
    found = paired_shares(1, 1, 7, 12)
    assert found.estimate == pytest.approx(-6 / 21)
    assert (found.low, found.high) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(counts, counts, counts, counts)
def test_the_interval_holds_the_estimate_and_turns_with_the_sides(a: int, b: int, c: int, d: int) -> None:
    mine, other = paired_shares(a, b, c, d), paired_shares(a, c, b, d)
    assert -1 <= mine.low <= mine.estimate + 1e-9
    assert mine.estimate - 1e-9 <= mine.high <= 1
    assert (mine.low, mine.high) == pytest.approx((-other.high, -other.low), abs=1e-9)


@given(counts, st.integers(1, 20), st.integers(1, 20), counts)
def test_more_of_the_same_items_narrow_it(a: int, b: int, c: int, d: int) -> None:
    few, many = paired_shares(a, b, c, d), paired_shares(10 * a, 10 * b, 10 * c, 10 * d)
    assert many.high - many.low < few.high - few.low


def test_the_number_of_items_that_would_do_does() -> None:
    few = paired_shares(40, 2, 2, 6)
    assert few.low < -0.05
    enough = enough_pairs(few, 0.05)
    assert enough is not None
    times = enough / few.pairs
    many = paired_shares(*(round(times * one) for one in (40, 2, 2, 6)))
    assert many.low >= -0.05
    assert enough_pairs(paired_shares(10, 0, 30, 10), 0.05) is None


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=2, max_size=40))
def test_a_ratio_turns_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    mine = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    other = paired_ratio([b for _, b in pairs], [a for a, _ in pairs])
    assert mine.low <= mine.estimate + 1e-9
    assert (1 + mine.estimate) * (1 + other.estimate) == pytest.approx(1)
    if mine.high < 1e6:
        assert (1 + mine.high) * (1 + other.low) == pytest.approx(1, rel=1e-6)


def test_a_ratio_of_one_pair_tells_nothing() -> None:
    assert paired_ratio([2.0], [1.0]).high == math.inf
