"""How many units an experiment needs, before it starts."""

import math
from statistics import NormalDist
from typing import NamedTuple

from penstock.core.errors import BadRequest
from penstock.experiments.sequences import best_rho, normal_mixture_bound

_NORMAL = NormalDist()


class Plan(NamedTuple):
    """Units an arm: for one look at the end, and for an experiment that is watched all the time."""

    fixed: int
    always_valid: int


def _check(alpha: float, power: float) -> None:
    if not 0 < alpha < 1:
        raise BadRequest(f"alpha is {alpha}: it must be between 0 and 1.", param="plan.alpha")
    if not 0 < power < 1:
        raise BadRequest(f"power is {power}: it must be between 0 and 1.", param="plan.power")


def two_proportions(
    base: float, other: float, alpha: float = 0.05, power: float = 0.8, *, pooled: bool = True
) -> float:
    """Units an arm to tell the share `other` from `base`, two-sided (Fleiss, Levin and Paik 2003, equation 4.14, uncorrected).

    .20 against .25 gives 1,093.7 with the pooled variance under "no difference", 1,030.2 with the base rate's for both arms.

    Raises:
        BadRequest: if a share is not between 0 and 1, or both are equal.
    """
    _check(alpha, power)
    if not (0 <= base <= 1 and 0 <= other <= 1) or base == other:
        raise BadRequest(f"the shares {base} and {other} must be two different ones between 0 and 1.", param="baseline")
    null = (base + other) / 2 if pooled else base
    level = _NORMAL.inv_cdf(1 - alpha / 2) * math.sqrt(2 * null * (1 - null))
    reach = _NORMAL.inv_cdf(power) * math.sqrt(base * (1 - base) + other * (1 - other))
    return (level + reach) ** 2 / (base - other) ** 2


def two_means(effect: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Units an arm to see a difference of `effect` standard deviations with a two-sided t-test (noncentral t): .5 gives 63.77.

    Raises:
        BadRequest: if the effect is 0.
    """
    from scipy.special import nctdtr, stdtrit  # half a second of imports that starting a process need not pay

    _check(alpha, power)
    if effect == 0 or not math.isfinite(effect):
        raise BadRequest(f"the effect is {effect}: it must be a number other than 0.", param="minimum_effect")

    def reached(units: float) -> float:
        freedom = 2 * units - 2
        centre = abs(effect) * math.sqrt(units / 2)
        critical = stdtrit(freedom, 1 - alpha / 2)
        above = 1 - nctdtr(freedom, centre, critical)
        below = nctdtr(freedom, centre, -critical)
        return float(above + (below if below == below else 0.0))  # noqa: PLR0124 - far tails come out as NaN

    low, high = 2.0, 2.0 + 2 * ((_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)) / effect) ** 2 + 10
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < power else (low, middle)
    return high


def watched(fixed: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Units an arm for the same power with the confidence sequence tuned to that size, from those of one fixed look."""
    critical = normal_mixture_bound(1.0, alpha, best_rho(1.0, alpha))
    reach = _NORMAL.inv_cdf(power)
    return fixed * ((critical + reach) / (_NORMAL.inv_cdf(1 - alpha / 2) + reach)) ** 2


def plan_units(
    *, proportion: bool, baseline: float | None, deviation: float | None, effect: float, alpha: float, power: float
) -> Plan:
    """The plan for a smallest effect worth seeing, in the metric's own unit.

    Args:
        proportion: whether the metric is one.
        baseline: the control's share; None: one half, where the variance is largest.
        deviation: the standard deviation of one unit's value, for metrics that are no proportion; None: as large as the effect times 10.
        effect: the smallest difference worth seeing.
        alpha: the chance of seeing a difference that is not there.
        power: the chance of seeing one of `effect`.

    Raises:
        BadRequest: if these contradict each other.
    """
    if effect == 0 or not math.isfinite(effect):
        raise BadRequest(
            f"minimum_effect is {effect}: it must be a number other than 0.", param="primary.minimum_effect"
        )
    if proportion:
        base = 0.5 if baseline is None else baseline
        other = base + abs(effect) if base + abs(effect) <= 1 else base - abs(effect)
        fixed = two_proportions(base, other, alpha, power)
    else:
        if deviation is not None and deviation <= 0:
            raise BadRequest(f"deviation is {deviation}: it must be above 0.", param="plan.deviation")
        fixed = two_means(abs(effect) / (deviation if deviation is not None else 10 * abs(effect)), alpha, power)
    return Plan(math.ceil(fixed), math.ceil(watched(fixed, alpha, power)))


_WATCHED_VOTES = (
    1.45  # times the votes of one fixed look that `preference.preferred` needs for the same power, by simulation
)


def plan_votes(effect: float, alpha: float = 0.05, power: float = 0.8) -> Plan:
    """Votes to tell a share of one half and `effect` from one half: for one look, and for `preference.preferred`. .05: 783 and 1,135."""
    _check(alpha, power)
    share = 0.5 + effect
    if not 0 < effect < 0.5:
        raise BadRequest(
            f"the effect is {effect}: a share differs from one half by less than .5.", param="minimum_effect"
        )
    reach = _NORMAL.inv_cdf(1 - alpha / 2) * 0.5 + _NORMAL.inv_cdf(power) * math.sqrt(share * (1 - share))
    fixed = (reach / effect) ** 2
    return Plan(math.ceil(fixed), math.ceil(fixed * _WATCHED_VOTES))
