"""Inference that holds while you watch: confidence sequences and e-values, valid at every look and for every reason to stop.

Sources: Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (Annals of
Statistics 49), for the normal mixture; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory and
asymptotic confidence sequences" (Annals of Statistics 52), for its use with estimated variances; Lindon and Malek 2022, "Anytime-valid
inference for multinomial count data" (NeurIPS), for counts; Howard and Ramdas 2022, "Sequential estimation of quantiles with
applications to A/B testing and best-arm identification" (Bernoulli 28), for quantiles.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from penstock.experiments.statistics import Histogram, values_at


def best_rho(intrinsic_time: float, alpha: float) -> float:
    """The mixture's parameter that makes the two-sided boundary narrowest at `intrinsic_time` (Howard et al. 2021, section 3.2).

    100 and .05 give 12.60056.
    """
    level = 2 * math.log(1 / alpha)
    return intrinsic_time / (level + math.log1p(level))


def normal_mixture_bound(intrinsic_time: float, alpha: float, rho: float) -> float:
    """What a sum of mean zero and variance `intrinsic_time` stays below in absolute value, at all times, but for a chance of `alpha`."""
    spread = intrinsic_time + rho
    return math.sqrt(spread * (math.log(spread / rho) + 2 * math.log(1 / alpha)))


def radius(variance: float, count: int, planned: int, alpha: float) -> float:
    """Half the width of the asymptotic confidence sequence around an estimate.

    Args:
        variance: of the estimate, after `count` units.
        count: units so far, of both arms.
        planned: units at which the sequence should be narrowest.
        alpha: the chance that it ever leaves out the truth.
    """
    rho = best_rho(planned, alpha)
    return math.sqrt(variance) * normal_mixture_bound(count, alpha, rho) / math.sqrt(count)


def difference_log_e(estimate: float, variance: float, count: int, planned: int, alpha: float) -> float:
    """The logarithm of the e-value against "there is no difference": it passes log(1 / alpha) where the sequence leaves out 0.

    The mixture behind `normal_mixture_bound`. Arguments are those of `radius`, `estimate` being what has the `variance`.
    """
    rho = best_rho(planned, alpha)
    spread = count + rho
    return estimate * estimate / variance * count / (2 * spread) - math.log(spread / rho) / 2


def multinomial_log_e(counts: Sequence[float], shares: Sequence[float], concentration: float) -> float:
    """The logarithm of the e-value against "each of these fell in its cell with the given share".

    A Dirichlet mixture of likelihood ratios (Lindon and Malek 2022, equation 4): its chance of ever reaching log(1 / alpha) is at most
    alpha if the shares are true. `concentration` is the prior's weight in observations; large ones see small deviations.
    """
    total = math.lgamma(concentration) - math.lgamma(concentration + sum(counts))
    for count, share in zip(counts, shares, strict=True):
        if share <= 0:
            if count > 0:
                return math.inf
            continue
        prior = concentration * share
        total += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return total


class Mismatch(NamedTuple):
    """The sample-ratio-mismatch test: the e-value's logarithm, its limit, and the fixed-sample p-value beside it."""

    log_e: float
    limit: float
    p_value: float

    @property
    def found(self) -> bool:
        """Whether the counts cannot have come from these shares."""
        return self.log_e >= self.limit


_SRM_CONCENTRATION = 1000.0


def sample_ratio(counts: Sequence[int], shares: Sequence[float], alpha: float) -> Mismatch:
    """Whether units fell into arms by the shares that were set; valid at every look."""
    log_e = multinomial_log_e(counts, shares, _SRM_CONCENTRATION)
    return Mismatch(log_e, math.log(1 / alpha), sample_ratio_p(counts, shares))


def sample_ratio_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Pearson's chi-squared p-value of the counts, for one look: 821,588 against 815,482 at halves gives 1.82e-6.

    The example is of Kohavi, Tang and Xu 2020, "Trustworthy Online Controlled Experiments", chapter 21. `shares` sum to 1; fewer than
    two arms with a share, or no units, give 1.
    """
    total = sum(counts)
    cells = [(count, total * share) for count, share in zip(counts, shares, strict=True) if share > 0]
    if total == 0 or len(cells) < 2:
        return 1.0
    statistic = sum((count - expected) ** 2 / expected for count, expected in cells)
    from scipy.special import chdtrc  # half a second of imports that starting a process need not pay

    return float(chdtrc(len(cells) - 1, statistic))


class QuantileBand(NamedTuple):
    """A quantile and the ends of its confidence sequence, in the histogram's unit."""

    value: float
    low: float
    high: float


def quantile_band(
    histogram: Histogram, p: float, planned: int, alpha: float, design_effect: float = 1.0
) -> QuantileBand | None:
    """The confidence sequence of a quantile: all values whose share of smaller observations does not speak against `p`.

    That share's e-value is a beta mixture (the two-cell case of `multinomial_log_e`), so the band holds without any approximation for
    independent observations; `design_effect` shrinks the counts where observations of one unit resemble each other.
    """
    count = sum(histogram.values())
    if count == 0:
        return None
    low, high = _ranks(count, p, planned, alpha, design_effect)
    found = values_at(histogram, (low, _rank(p, count), high + 1))
    return QuantileBand(found[1], found[0], found[2])


def same_quantile_log_e(
    one: tuple[Histogram, float], other: tuple[Histogram, float], p: float, planned: int, alpha: float
) -> float:
    """The logarithm of the e-value against "both have the same quantile": of the value that both speak against the least.

    It passes log(1 / (2 alpha)) where their bands at `alpha` each are apart; half the larger of two e-values is one.

    Args:
        one: a histogram and its design effect.
        other: the same.
        p: the quantile.
        planned: observations at which the bands are narrowest.
        alpha: of one band.
    """
    totals = (sum(one[0].values()), sum(other[0].values()))
    wanted = (p * totals[0], p * totals[1])
    least, first, second = math.inf, 0, 0  # ranks below the bucket
    for key in sorted({*one[0], *other[0]}):
        above = (first + one[0].get(key, 0), second + other[0].get(key, 0))
        # Outside of the stretch from the one quantile to the other both speak louder the farther away a value is.
        if above[0] >= wanted[0] or above[1] >= wanted[1]:
            nearest = (min(max(wanted[0], first), above[0]), min(max(wanted[1], second), above[1]))
            evidence = max(
                _rank_log_e(nearest[0], totals[0], p, planned, alpha, one[1]),
                _rank_log_e(nearest[1], totals[1], p, planned, alpha, other[1]),
            )
            least = min(least, evidence)
            if above[0] >= wanted[0] and above[1] >= wanted[1]:
                break
        first, second = above
    return least - math.log(2)


def _rank_log_e(rank: float, count: int, p: float, planned: int, alpha: float, design_effect: float) -> float:
    """The log e-value against "the share of values below this rank's is `p`"."""
    concentration = max(2.0, best_rho(planned / design_effect, alpha))
    below = rank / design_effect
    return multinomial_log_e((below, count / design_effect - below), (p, 1 - p), concentration)


def _rank(p: float, count: int) -> int:
    """The rank of the quantile itself, as `statistics.quantile` has it."""
    return min(count, max(1, math.ceil(p * count)))


@lru_cache(maxsize=8192)
def _ranks(count: int, p: float, planned: int, alpha: float, design_effect: float) -> tuple[int, int]:
    """The ranks between which the quantile is, however often one looks."""
    limit = math.log(1 / alpha)

    def speaks_against(rank: int) -> bool:
        return _rank_log_e(rank, count, p, planned, alpha, design_effect) >= limit

    centre = round(p * count)
    low = _edge(0, centre, speaks_against(0), speaks_against)
    high = _edge(count, centre, speaks_against(count), speaks_against)
    return low, high


def _edge(outer: int, inner: int, excluded: bool, speaks_against: Callable[[int], bool]) -> int:
    """The rank nearest to `outer` that is not excluded, by bisection: the evidence only grows with the distance from the centre."""
    if not excluded:
        return outer
    while abs(outer - inner) > 1:
        middle = (outer + inner) // 2
        if speaks_against(middle):
            outer = middle
        else:
            inner = middle
    return inner
