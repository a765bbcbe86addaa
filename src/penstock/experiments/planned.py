"""Verdicts at planned looks: O'Brien-Fleming's boundaries, or one look at the end by Welch's t."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

from penstock.experiments.counted import Look, Taken
from penstock.experiments.design import Design
from penstock.experiments.group_sequential import boundaries, even


class Result(NamedTuple):
    """The look that counts: the first whose statistic crossed its boundary, or else the last; `boundary` is in standard errors."""

    number: int
    taken: Taken
    boundary: float
    crossed: bool


def critical(design: Design) -> tuple[float, ...]:
    """The boundaries of all planned looks, each treatment having its part of alpha."""
    return boundaries(even(design.planned_looks), design.plan.alpha / len(design.treatments))


def judged(design: Design, looks: Mapping[int, Look], arm: str) -> Result | None:
    """What the looks say of a treatment; None before the first that saw enough."""
    found: Result | None = None
    bounds = critical(design)
    for number in sorted(looks):
        taken = next((one for one in looks[number].taken if one.arm == arm), None)
        if taken is None:
            continue
        boundary = bounds[number - 1]
        if design.planned_looks == 1:
            boundary = _students(design.plan.alpha / len(design.treatments), taken.freedom)
        crossed = abs(taken.estimate) >= boundary * math.sqrt(taken.variance)
        found = Result(number, taken, boundary, crossed)
        if crossed:
            break
    return found


def _students(alpha: float, freedom: float | None) -> float:
    """The two-sided critical value of t; of the normal distribution for infinitely many degrees of freedom, None."""
    if freedom is None:
        return NormalDist().inv_cdf(1 - alpha / 2)
    from scipy.special import stdtrit  # half a second of imports that starting a process need not pay

    return float(stdtrit(freedom, 1 - alpha / 2))
