"""A bandit's shares: who is best with which chance, and what that becomes."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.experiments.bandit import (
    BUCKETS,
    DECAY,
    Belief,
    Seen,
    belief_of_share,
    beliefs_of_means,
    chances,
    floored,
    linear_beliefs,
    top_two,
)
from penstock.experiments.statistics import Moments, moments_of


def test_the_chance_to_be_best_is_that_of_the_books() -> None:
    # X ~ Beta(2, 1) is above a uniform one with the chance E[X] = 2/3; of K that are alike each is best with 1/K.
    assert chances([Belief("beta", 2, 1), Belief("beta", 1, 1)])[0] == pytest.approx(2 / 3, abs=1e-4)
    assert chances([Belief("beta", 5, 5)] * 4) == pytest.approx([0.25] * 4, abs=1e-9)
    # Two normals: Phi of the difference over the root of the summed variances.
    apart = chances([Belief("normal", 1.0, 0.6), Belief("normal", 0.0, 0.8)])
    assert apart[0] == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=1e-4)


def test_the_chance_to_be_best_is_what_draws_say() -> None:
    beliefs = [Belief("beta", 12, 20), Belief("beta", 30, 40), Belief("beta", 3, 3), Belief("beta", 200, 300)]
    draw = random.Random(3)
    wins = [0] * 4
    for _ in range(20_000):
        drawn = [draw.betavariate(one.a, one.b) for one in beliefs]
        wins[drawn.index(max(drawn))] += 1
    assert chances(beliefs) == pytest.approx([count / 20_000 for count in wins], abs=0.015)


def test_top_two_is_what_its_draws_say() -> None:
    best = [0.7, 0.2, 0.1]
    draw = random.Random(5)
    counts = [0] * 3
    for _ in range(20_000):
        first = draw.choices(range(3), best)[0]
        if draw.random() < 0.5:
            counts[first] += 1
            continue
        second = first
        while second == first:
            second = draw.choices(range(3), best)[0]
        counts[second] += 1
    assert top_two(best, 0.5) == pytest.approx([count / 20_000 for count in counts], abs=0.015)
    assert top_two(best, 1.0) == pytest.approx(best)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20).filter(lambda parts: sum(parts) > 0.01),
    st.integers(0, 10_000_000),
    st.floats(0, 0.04),
)
def test_every_arm_keeps_a_floor_in_whole_buckets(parts: list[float], units: int, floor: float) -> None:
    shares = [part / sum(parts) for part in parts]
    found = floored(shares, units, floor)
    assert sum(round(one * BUCKETS) for one in found) == BUCKETS
    least = max(floor, max(units, 1) ** -DECAY / len(found))
    for share in found:
        assert share == round(share * BUCKETS) / BUCKETS
        assert share >= max(1 / BUCKETS, least - 1 / BUCKETS)
    if units == 0:
        assert max(found) - min(found) <= 1 / BUCKETS + 1e-12


def test_what_is_believed_follows_what_was_seen() -> None:
    assert belief_of_share(Moments()) == Belief("beta", 1.0, 1.0)
    seen = belief_of_share(moments_of([(1, 1)] * 30 + [(0, 1)] * 70))
    assert seen.a / (seen.a + seen.b) == pytest.approx(31 / 102, abs=0.01)
    # A unit that asks ten times and always gets the same counts as one, not as ten.
    clustered = belief_of_share(moments_of([(10, 10)] * 30 + [(0, 10)] * 70))
    assert clustered.a + clustered.b == pytest.approx(seen.a + seen.b, rel=0.05)
    slow = [moments_of([(400 + d, 1) for d in range(-20, 21)]), moments_of([(300 + d, 1) for d in range(-20, 21)])]
    beliefs = [one.turned() for one in beliefs_of_means(slow, 1.0)]
    assert chances(beliefs)[1] > 0.99
    unknown = beliefs_of_means([slow[0], Moments()], 1.0)
    assert unknown[1].b > 5 * unknown[0].b


def test_a_context_without_data_leans_on_the_others() -> None:
    features = [(1.0, -1.0), (1.0, 0.0), (1.0, 1.0)]
    draw = random.Random(2)

    def of(mean: float, count: int) -> Moments:
        return moments_of([(round(1000 * draw.gauss(mean, 0.2)), 1) for _ in range(count)])

    seen = [Seen(features[0], of(1.0, 200)), Seen(features[1], of(2.0, 200)), Seen(features[2], Moments())]
    low, middle, high = linear_beliefs(seen, features, 1 / 1000, 1.5)
    assert (low.a, middle.a) == pytest.approx((1.0, 2.0), abs=0.1)
    assert high.a == pytest.approx(3.0, abs=0.2)  # on the line through the other two
    assert high.b > middle.b


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(0, 5))
def test_nothing_known_is_everything_alike(arms: int, _again: int) -> None:
    assert chances([Belief("beta", 1, 1)] * arms) == pytest.approx([1 / arms] * arms)
