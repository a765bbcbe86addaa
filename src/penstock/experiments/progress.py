"""Power while an experiment runs: what it can still see, by how much its metric has varied until now.

The variance is that of both arms together, whose difference is not looked at: so a plan that is renewed by it keeps its error rate
(Friede and Kieser 2006, "Sample size recalculation in internal pilot study designs: a review", Biometrical Journal 48, section 3).
"""

import math
from statistics import NormalDist

import msgspec

from penstock.experiments.compare import Difference
from penstock.experiments.design import Design
from penstock.experiments.group_sequential import inflation
from penstock.experiments.sequences import best_rho, normal_mixture_bound

_NORMAL = NormalDist()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Of one treatment, in units of that arm: seen, planned, and needed by the variance seen so far.

    `detectable` is the smallest difference that is found with the plan's power at the planned size, in the metric's unit; `power` the
    chance to find the smallest effect worth seeing there. All three are None until there is a variance.
    """

    arm: str
    units: int
    planned: int
    needed: int | None = None
    detectable: float | None = None
    power: float | None = None


def progress(design: Design, arm: str, units: int, found: Difference | None) -> Progress:
    """How far `arm` is, with `units` that have data; `found` is its difference from the control."""
    planned = design.planned_units()
    if found is None or units <= 0:
        return Progress(arm=arm, units=units, planned=planned)
    alpha = design.plan.alpha / len(design.treatments)
    reach = _NORMAL.inv_cdf(design.plan.power)
    critical = _critical(design, alpha)
    unit_variance = found.variance * units  # of the difference, for each unit of the arm
    error = math.sqrt(unit_variance / planned)
    effect = design.primary.minimum_effect
    return Progress(
        arm=arm,
        units=units,
        planned=planned,
        needed=math.ceil(unit_variance * ((critical + reach) / effect) ** 2),
        detectable=(critical + reach) * error,
        power=_NORMAL.cdf(effect / error - critical),
    )


def _critical(design: Design, alpha: float) -> float:
    """How many standard errors a difference must have at the planned size."""
    if design.planned_looks == 0:
        return normal_mixture_bound(1.0, alpha, best_rho(1.0, alpha))
    fixed, reach = _NORMAL.inv_cdf(1 - alpha / 2), _NORMAL.inv_cdf(design.plan.power)
    return (fixed + reach) * math.sqrt(inflation(design.planned_looks, alpha, design.plan.power)) - reach
