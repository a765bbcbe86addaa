"""A treatment against the control in one metric: the difference, its variance, and its interval, within strata and then put together."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from penstock.experiments.counted import Layer, Statistics
from penstock.experiments.cuped import adjusted
from penstock.experiments.design import Design
from penstock.experiments.metrics import Metric
from penstock.experiments.sequences import QuantileBand, quantile_band, same_quantile_log_e
from penstock.experiments.statistics import Estimate, Histogram, Moments, estimate, stratified, welch

MIN_UNITS = 20  # an arm's, before anything is estimated: the central limit theorem needs a few


class Difference(NamedTuple):
    """Treatment minus control: the estimate, its variance, and the units of both that it rests on.

    `freedom`: degrees of, by Welch, infinite over several strata; `spared`: the share of the variance that the covariate took away.
    """

    estimate: float
    variance: float
    units: int
    freedom: float = math.inf
    spared: float | None = None


class QuantileDifference(NamedTuple):
    """The difference of two quantiles, the ends of its confidence sequence, and the log e-value against "they are the same"."""

    estimate: float
    lower: float
    upper: float
    log_e: float


def difference(design: Design, statistics: Statistics, metric: Metric, arm: str) -> Difference | None:
    """Of a mean, a proportion or a ratio; None below `MIN_UNITS` units in each arm of some stratum, or if nothing has varied yet."""
    past = design.covariate is not None and metric.name == design.primary.metric
    pairs: list[tuple[Estimate, Estimate]] = []
    plain = 0.0
    for control, treatment in _layers(design, statistics, metric, arm):
        found = [
            estimate(one.moments, metric.scale, proportion=metric.type == "proportion") for one in (control, treatment)
        ]
        if found[0] is None or found[1] is None or min(found[0].units, found[1].units) < MIN_UNITS:
            continue
        pair = found[0], found[1]
        if past:
            units = pair[0].units + pair[1].units
            plain += units * units * (pair[0].variance + pair[1].variance)
            pair = adjusted((control, pair[0]), (treatment, pair[1]), metric.scale)
        pairs.append(pair)
    if not pairs:
        return None
    middle, variance, units = stratified(pairs)
    if variance <= 0:
        return None  # nothing has varied yet: there is no scale to judge by
    spared = max(0.0, 1 - variance * units * units / plain) if past and plain > 0 else None
    freedom = welch(*pairs[0]).freedom if len(pairs) == 1 else math.inf
    return Difference(middle, variance, units, freedom, spared)


def _layers(design: Design, statistics: Statistics, metric: Metric, arm: str) -> Iterator[tuple[Layer, Layer]]:
    """Control and treatment in each epoch, and within it in each stratum."""
    none = Layer()
    for epoch in sorted(statistics.shares):
        if design.layered:
            for stratum in design.strata:
                cells = [(epoch, stratum, name, metric.name) for name in (design.incumbent, arm)]
                yield statistics.layers.get(cells[0], none), statistics.layers.get(cells[1], none)
        else:
            places = [(epoch, name, metric.name) for name in (design.incumbent, arm)]
            yield (
                Layer(statistics.moments.get(places[0], none.moments)),
                Layer(statistics.moments.get(places[1], none.moments)),
            )


def quantile_difference(
    design: Design, statistics: Statistics, metric: Metric, arm: str, planned: int, alpha: float
) -> QuantileDifference | None:
    """Of the newest epoch that has both arms; alpha is split over the epochs that the plan can have, and over the two arms."""
    assert metric.quantile is not None
    each = alpha / max(1, len(design.plan.steps)) / 2
    for epoch in sorted(statistics.shares, reverse=True):
        seen: list[tuple[Histogram, float]] = []
        for name in (design.incumbent, arm):
            histogram = statistics.histograms.get((epoch, name, metric.name), {})
            effect = _design_effect(statistics, metric, epoch, name)
            if effect is not None and histogram:
                seen.append((histogram, effect))
        if len(seen) < 2:
            continue
        bands = [quantile_band(one, metric.quantile, planned // 2, each, effect) for one, effect in seen]
        if bands[0] is None or bands[1] is None:
            continue
        log_e = same_quantile_log_e(seen[0], seen[1], metric.quantile, planned // 2, each)
        return _difference_of(bands[0], bands[1], metric.scale, log_e)
    return None


def _difference_of(
    control: QuantileBand, treatment: QuantileBand, scale: float, log_e: float
) -> QuantileDifference | None:
    ends = (treatment.value - control.value, treatment.low - control.high, treatment.high - control.low)
    if any(math.isnan(end) for end in ends):
        return None
    return QuantileDifference(ends[0] * scale, ends[1] * scale, ends[2] * scale, log_e)


def _design_effect(statistics: Statistics, metric: Metric, epoch: int, arm: str) -> float | None:
    """The most that a unit's resembling observations can inflate the variance of a share; None below `MIN_UNITS` units.

    It is the mean of the squared number of observations of a unit over their mean number: as if all of one unit's were the same.
    """
    counted = "cost" if not metric.event else metric.name  # the number of requests, or of events
    moments = statistics.moments.get((epoch, arm, counted), Moments())
    if moments.units < MIN_UNITS:
        return None
    return max(1.0, moments.bottom_bottom / moments.bottom)
