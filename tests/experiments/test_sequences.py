"""Always-valid inference and sample sizes: published numbers, and error rates under continuous watching."""

import math

import numpy as np
import pytest

from penstock.core.errors import BadRequest
from penstock.experiments.sample_size import plan_units, two_means, two_proportions, watched
from penstock.experiments.sequences import (
    best_rho,
    multinomial_log_e,
    normal_mixture_bound,
    quantile_band,
    radius,
    sample_ratio,
    sample_ratio_p,
)
from penstock.experiments.statistics import bucket_of, merged_histogram


def test_best_rho_is_the_published_one() -> None:
    assert best_rho(100, 0.05) == pytest.approx(12.60056, abs=5e-6)


def test_the_normal_mixture_boundary_at_its_best_place() -> None:
    rho = best_rho(100, 0.05)
    bound = normal_mixture_bound(100, 0.05, rho)
    # Howard et al. 2021, eq. 14, written out
    assert bound == pytest.approx(math.sqrt((100 + rho) * math.log((100 + rho) / (0.05**2 * rho))))
    others = [normal_mixture_bound(100, 0.05, rho * k) for k in (0.3, 0.6, 1.7, 3.0)]
    assert bound < min(others)


def test_sample_ratio_mismatch_is_the_published_p_value() -> None:
    # Fabijan et al. 2019, "Diagnosing sample ratio mismatch": 821,588 against 815,482
    assert sample_ratio_p((821_588, 815_482), (0.5, 0.5)) == pytest.approx(1.8e-6, rel=0.02)
    assert f"{sample_ratio_p((821_588, 815_482), (0.5, 0.5)):.2e}" == "1.82e-06"
    assert sample_ratio((821_588, 815_482), (0.5, 0.5), 0.001).found


def test_sample_sizes_are_the_published_ones() -> None:
    assert math.ceil(two_proportions(0.20, 0.25)) == 1094
    assert round(two_proportions(0.20, 0.25, pooled=False)) == 1030
    assert two_means(0.5) == pytest.approx(63.7656, abs=5e-4)  # G*Power, statsmodels: 63.77
    assert watched(1000) == pytest.approx(1914.9, abs=0.1)


def test_planning_refuses_nonsense_by_name() -> None:
    with pytest.raises(BadRequest, match="shares"):
        two_proportions(0.2, 0.2)
    with pytest.raises(BadRequest, match="alpha"):
        two_means(0.5, alpha=0)
    with pytest.raises(BadRequest, match="minimum_effect"):
        plan_units(proportion=True, baseline=None, deviation=None, effect=0, alpha=0.05, power=0.8)
    with pytest.raises(BadRequest, match="deviation"):
        plan_units(proportion=False, baseline=None, deviation=-1, effect=1, alpha=0.05, power=0.8)
    plan = plan_units(proportion=True, baseline=0.2, deviation=None, effect=0.05, alpha=0.05, power=0.8)
    assert plan == (1094, 2095)


def test_two_cell_evidence_is_a_bayes_factor() -> None:
    # Beta(1, 1) against one half after 7 of 10: B(8, 4) / B(1, 1) * 2^10
    expected = math.log(math.gamma(8) * math.gamma(4) / math.gamma(12) * 2**10)
    assert multinomial_log_e((7, 3), (0.5, 0.5), 2.0) == pytest.approx(expected)
    assert multinomial_log_e((1, 0), (0.0, 1.0), 2.0) == math.inf


def test_sample_ratio_false_alarms_stay_under_alpha_while_watched() -> None:
    rng = np.random.default_rng(5)
    runs, alarms = 400, 0
    for _ in range(runs):
        ones = rng.binomial(50, 0.1, 100).cumsum()
        alarms += any(
            sample_ratio((int(n) * 50 - int(k), int(k)), (0.9, 0.1), 0.05).found for n, k in enumerate(ones, 1)
        )
    assert alarms / runs <= 0.05


def test_sample_ratio_finds_a_lost_tenth() -> None:
    rng = np.random.default_rng(6)
    lost = rng.binomial(20_000, 0.5 * 0.9 / (0.5 + 0.45))
    assert sample_ratio((20_000 - lost, lost), (0.5, 0.5), 0.001).found


@pytest.mark.parametrize("kind", ["proportion", "lognormal"])
def test_a_watched_aa_test_is_seldom_wrong(kind: str) -> None:
    rng = np.random.default_rng(17)
    runs, looks, step = 400, 60, 100  # a look after every 100 units an arm
    wrong = 0
    for _ in range(runs):
        size = (2, looks, step)
        values = (rng.random(size) < 0.1).astype(float) if kind == "proportion" else rng.lognormal(0, 1, size)
        n = np.arange(1, looks + 1) * step
        sums, squares = values.sum(2).cumsum(1), (values**2).sum(2).cumsum(1)
        means = sums / n
        variances = (squares / n - means**2) / (n - 1)
        difference = means[1] - means[0]
        reach = np.array(
            [radius(float(v), int(2 * m), 2 * looks * step, 0.05) for v, m in zip(variances.sum(0), n, strict=True)]
        )
        wrong += bool((np.abs(difference) > reach).any())
    assert wrong / runs <= 0.05


def test_power_of_the_watched_test() -> None:
    # Planned for 80 %: the size that `watched` gives must see a true effect of that size in about that share of the runs.
    rng = np.random.default_rng(23)
    plan = plan_units(proportion=True, baseline=0.2, deviation=None, effect=0.05, alpha=0.05, power=0.8)
    runs, n, seen = 300, plan.always_valid, 0
    for _ in range(runs):
        found = False
        a, b = (rng.random(n) < 0.20).cumsum(), (rng.random(n) < 0.25).cumsum()
        for m in range(200, n + 1, 200):
            p, q = a[m - 1] / m, b[m - 1] / m
            variance = (p * (1 - p) + q * (1 - q)) / m
            found = found or q - p > radius(float(variance), 2 * m, 2 * n, 0.05)
        seen += found
    assert seen / runs >= 0.75


def test_a_watched_quantile_is_seldom_left_out() -> None:
    rng = np.random.default_rng(29)
    truth = math.exp(1.6448536269514722) * 1e8
    runs, wrong, last = 150, 0, None
    for _ in range(runs):
        values = (rng.lognormal(0, 1, 3000) * 1e8).astype(int)
        missed = False
        for n in range(100, 3001, 290):
            counts = merged_histogram({bucket_of(int(v)): 1} for v in values[:n])
            last = quantile_band(counts, 0.95, 3000, 0.05)
            assert last is not None
            missed = missed or not last.low * 0.97 <= truth <= last.high * 1.03
        wrong += missed
    assert wrong / runs <= 0.05
    assert last is not None
    assert last.low < last.value < last.high < 2 * last.value
    wide = quantile_band({bucket_of(10**8 + i): 1 for i in range(20)}, 0.95, 3000, 0.05)
    assert wide is not None
    assert wide.high == math.inf  # twenty values say nothing of how slow it can get
