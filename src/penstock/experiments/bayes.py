"""A Bayesian summary beside the verdict, for whoever asked for one: it decides nothing, and looking at it often is not paid for.

The difference's likelihood is taken as normal and its prior is normal, so the belief is normal too (Gelman et al. 2013, "Bayesian Data
Analysis", section 2.5); the expected loss is that of choosing the treatment (Stucchio 2015, "Bayesian A/B testing at VWO", section 5).
"""

import math
from statistics import NormalDist
from typing import Literal

import msgspec

from penstock.experiments.declared import Prior

_NORMAL = NormalDist()


class Belief(msgspec.Struct, frozen=True, kw_only=True):
    """About the difference, in the metric's unit; `expected_loss` is what choosing the treatment costs on average, 0 or more."""

    mean: float
    deviation: float
    lower: float
    upper: float
    chance_better: float
    expected_loss: float


def belief(
    estimate: float, variance: float, prior: Prior, direction: Literal["up", "down"], level: float = 0.95
) -> Belief:
    """What to believe after `estimate`, with the central interval that has the probability `level`."""
    if prior.deviation is None:
        mean, spread = estimate, variance
    else:
        weight = prior.deviation**2 / (prior.deviation**2 + variance)
        mean = weight * estimate + (1 - weight) * prior.mean
        spread = weight * variance
    deviation = math.sqrt(spread)
    towards = mean / deviation if direction == "up" else -mean / deviation
    reach = _NORMAL.inv_cdf((1 + level) / 2) * deviation
    return Belief(
        mean=mean,
        deviation=deviation,
        lower=mean - reach,
        upper=mean + reach,
        chance_better=_NORMAL.cdf(towards),
        expected_loss=max(0.0, deviation * (_NORMAL.pdf(towards) - towards * _NORMAL.cdf(-towards))),
    )
