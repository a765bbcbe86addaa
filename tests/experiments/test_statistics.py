"""Sufficient statistics: exact merging, the delta method, Welch, strata, histograms."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from penstock.experiments.statistics import (
    FAILED,
    Moments,
    bucket_floor,
    bucket_of,
    estimate,
    merged_histogram,
    moments_of,
    quantile,
    stratified,
    value_at,
    welch,
)

units = st.lists(st.tuples(st.integers(-(10**12), 10**12), st.integers(0, 10**9)), max_size=20)


@given(units, units, units)
def test_merging_is_associative_commutative_and_equal_to_counting_at_once(
    a: list[tuple[int, int]], b: list[tuple[int, int]], c: list[tuple[int, int]]
) -> None:
    one, two, three = moments_of(a), moments_of(b), moments_of(c)
    assert one.merged(two).merged(three) == one.merged(two.merged(three))
    assert one.merged(two) == two.merged(one)
    assert one.merged(two).merged(three) == moments_of([*a, *b, *c])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1000, 1000), st.integers(0, 5)), max_size=30), st.randoms())
def test_units_that_grow_end_where_they_would_have_been_put_whole(
    events: list[tuple[int, int, int]], rng: random.Random
) -> None:
    def grown(order: list[tuple[int, int, int]]) -> Moments:
        total = Moments()
        now: dict[int, tuple[int, int]] = {}
        for unit, top, bottom in order:
            before = now.get(unit, (0, 0))
            now[unit] = (before[0] + top, before[1] + bottom)
            total = total.moved(before, now[unit])
        return total

    shuffled = list(events)
    rng.shuffle(shuffled)
    assert grown(events) == grown(shuffled)


def test_single_requests_give_the_sample_mean_and_variance() -> None:
    values = [3, 5, 8, 13, 21, 34]
    found = estimate(moments_of((v, 1) for v in values))
    assert found is not None
    assert found.value == pytest.approx(np.mean(values))
    assert found.variance == pytest.approx(np.var(values, ddof=1) / len(values))


def test_welch_is_students_sleep_data() -> None:
    # Student (1908), extra sleep by two drugs; R: t.test(extra ~ group, sleep) gives t = -1.8608, df = 17.776, difference 1.58
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    one = estimate(moments_of((round(v * 10), 1) for v in first), 0.1)
    two = estimate(moments_of((round(v * 10), 1) for v in second), 0.1)
    assert one is not None
    assert two is not None
    found = welch(one, two)
    assert (round(found.difference, 4), round(found.t, 4), round(found.freedom, 3)) == (1.58, 1.8608, 17.776)


def test_the_delta_method_agrees_with_linearised_values_and_the_bootstrap() -> None:
    rng = np.random.default_rng(7)
    bottoms = rng.integers(1, 20, 400)
    tops = rng.binomial(bottoms, rng.beta(2, 5, 400))
    found = estimate(moments_of(zip(tops.tolist(), bottoms.tolist(), strict=True)))
    assert found is not None
    ratio = tops.sum() / bottoms.sum()
    linear = (tops - ratio * bottoms) / bottoms.mean()
    assert found.value == pytest.approx(ratio)
    assert found.variance == pytest.approx(np.var(linear, ddof=1) / 400)
    draws = rng.integers(0, 400, (2000, 400))
    boot = tops[draws].sum(1) / bottoms[draws].sum(1)
    assert math.sqrt(found.variance) == pytest.approx(boot.std(), rel=0.06)
    naive = ratio * (1 - ratio) / bottoms.sum()
    assert found.variance > 1.5 * naive  # requests of one unit resemble each other


def test_variance_survives_large_offsets() -> None:
    base = 10**15
    found = estimate(moments_of((base + d, 1) for d in (0, 1, 2, 3)))
    assert found is not None
    assert found.variance == pytest.approx(np.var([0, 1, 2, 3], ddof=1) / 4)


def test_a_share_without_a_failure_is_not_certain() -> None:
    found = estimate(moments_of([(0, 1)] * 50), proportion=True)
    assert found is not None
    assert found.variance > 0
    assert estimate(moments_of([(1, 1)])) is None


def test_strata_undo_simpsons_paradox() -> None:
    # Charig et al. 1986, kidney stones: A is better for small (93 % > 87 %) and for large ones (73 % > 69 %), worse when pooled.
    def arm(good: int, count: int) -> Moments:
        return moments_of([(1, 1)] * good + [(0, 1)] * (count - good))

    small = estimate(arm(234, 270)), estimate(arm(81, 87))
    large = estimate(arm(55, 80)), estimate(arm(192, 263))
    pooled_b, pooled_a = arm(234, 270).merged(arm(55, 80)), arm(81, 87).merged(arm(192, 263))
    assert pooled_a.top / pooled_a.bottom < pooled_b.top / pooled_b.bottom
    strata = [(b, a) for b, a in (small, large) if a is not None and b is not None]
    difference, variance, count = stratified(strata)
    assert 0.04 < difference < 0.07
    assert variance > 0
    assert count == 700
    with pytest.raises(ValueError, match="no stratum"):
        stratified([])


@given(st.integers(0, 2**62))
def test_a_bucket_holds_its_values_to_three_percent(value: int) -> None:
    bucket = bucket_of(value)
    assert bucket_floor(bucket) <= max(value, 32)
    assert max(value, 32) < bucket_floor(bucket + 1) or bucket + 1 >= FAILED
    if bucket + 1 < FAILED:
        assert bucket_floor(bucket + 1) / bucket_floor(bucket) <= 1 + 1 / 32


def test_quantiles_of_a_histogram() -> None:
    rng = np.random.default_rng(3)
    values = (rng.lognormal(0, 1, 20000) * 1e8).astype(int).tolist()
    counts = merged_histogram({bucket_of(v): 1} for v in values)
    for p in (0.5, 0.95, 0.99):
        assert quantile(counts, p) == pytest.approx(np.quantile(values, p), rel=0.03)
    assert quantile({}, 0.5) is None
    counts[FAILED] = 5000
    assert quantile(counts, 0.95) == math.inf
    assert value_at(counts, 0) == 0.0
    assert value_at({32: 1}, 2) == math.inf


def test_welch_agrees_with_scipy() -> None:
    rng = np.random.default_rng(11)
    a, b = rng.integers(0, 1000, 37).tolist(), rng.integers(100, 2000, 53).tolist()
    one, two = estimate(moments_of((v, 1) for v in a)), estimate(moments_of((v, 1) for v in b))
    assert one is not None
    assert two is not None
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert welch(one, two).t == pytest.approx(expected.statistic)
    assert welch(one, two).freedom == pytest.approx(expected.df)
