"""All comparisons of an experiment: each metric of each treatment against the control, as a value with its interval."""

import math
from collections.abc import Iterator
from typing import Literal

import msgspec

from penstock.experiments.adaptive import Weighted
from penstock.experiments.bandit_run import allocated_difference, weighted_of
from penstock.experiments.bayes import Belief, belief
from penstock.experiments.compare import Difference, difference, quantile_difference
from penstock.experiments.counted import Look, Statistics
from penstock.experiments.declared import Prior
from penstock.experiments.design import Design
from penstock.experiments.metrics import Metric
from penstock.experiments.paired_metrics import VOTES
from penstock.experiments.pairs import paired_difference, paired_values, votes
from penstock.experiments.planned import Result, critical, judged
from penstock.experiments.preference import DEFAULT_EFFECT, preferred
from penstock.experiments.progress import Progress, progress
from penstock.experiments.sequences import difference_log_e, radius
from penstock.experiments.statistics import Moments, merged_histogram, quantile

MIN_PLANNED = 200  # below it the sequence would be tuned to where the theorem does not hold yet


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one treatment against the control; numbers are None until there are enough units (`n` counts those with data).

    `finding` says whether e-BH calls it one among all metrics; `spared` is the share of the variance that the covariate took away; `look`
    the number of the planned look that the numbers are of, 0 where every look counts.
    """

    metric: str
    title: str
    type: str
    unit: str
    direction: str
    primary: bool
    arm: str
    control: str
    n: int
    control_n: int
    value: float | None = None
    control_value: float | None = None
    estimate: float | None = None  # treatment minus control, by epochs
    lower: float | None = None
    upper: float | None = None
    state: Literal["better", "worse", "no_difference", "open"] = "open"
    log_e: float | None = None  # the logarithm of the e-value against "no difference"
    finding: bool = False
    spared: float | None = None
    look: int = 0
    belief: Belief | None = None


class LookMade(msgspec.Struct, frozen=True, kw_only=True):
    """A planned look: at which share of the planned size it is, its boundary, and what it saw; `statistic` is None before it was taken, and if it saw too few units."""

    number: int
    fraction: float
    boundary: float
    arm: str
    taken: bool = False
    statistic: float | None = None
    crossed: bool = False


def comparisons_of(design: Design, statistics: Statistics) -> Iterator[Comparison]:
    """The primary metric first, then all others of which there is anything."""
    catalogue = design.catalogue
    names = [design.primary.metric, *(name for name in catalogue if name != design.primary.metric)]
    planned = max(MIN_PLANNED, design.planned().always_valid * len(design.arms))
    for name in names:
        primary = name == design.primary.metric
        weighted = _weights(design, statistics, catalogue[name])
        for arm in design.treatments:
            one = _compared(design, statistics, catalogue[name], arm, planned, weighted)
            told = catalogue[name].per != "unit" or one.value or one.control_value  # of an event that somebody tells of
            if primary or (told and (one.n or one.control_n)):
                yield one


def _weights(design: Design, statistics: Statistics, metric: Metric) -> Weighted | None:
    """Of a bandit, the means that hold where shares followed the outcomes; None where there are none."""
    if design.strategy != "bandit" or metric.quantile is not None:
        return None
    told = any(_count(statistics, metric, arm.name) for arm in design.arms)
    return weighted_of(design, statistics, metric) if told else None


def _compared(
    design: Design, statistics: Statistics, metric: Metric, arm: str, planned: int, weighted: Weighted | None = None
) -> Comparison:
    control = design.incumbent
    primary = metric.name == design.primary.metric
    comparison = Comparison(
        metric=metric.name,
        title=metric.name.replace("_", " "),
        type=metric.type,
        unit=metric.unit,
        direction=metric.direction,
        primary=primary,
        arm=arm,
        control=control,
        n=_count(statistics, metric, arm),
        control_n=_count(statistics, metric, control),
        value=_value(statistics, metric, arm),
        control_value=_value(statistics, metric, control),
    )
    if primary and design.planned_looks:
        return _at_look(design, statistics, comparison)
    alpha = design.plan.alpha / len(design.treatments)
    if design.paired:
        return _paired(design, statistics, metric, comparison, alpha)
    if weighted is not None:
        comparison = _weighted(metric, comparison, weighted)
    if metric.quantile is not None:
        between = quantile_difference(design, statistics, metric, arm, planned, alpha)
        if between is None:
            return comparison
        evidence = between.log_e - math.log(max(1, len(design.plan.steps)))
        return _told(design, comparison, (between.estimate, between.lower, between.upper), log_e=_finite(evidence))
    found = _difference(design, statistics, metric, arm, weighted)
    if found is None:
        return comparison
    reach = radius(found.variance, found.units, planned, alpha)
    comparison = msgspec.structs.replace(
        comparison,
        spared=found.spared,
        belief=None
        if design.bayes is None
        else belief(found.estimate, found.variance, design.bayes if primary else Prior(), metric.direction),
    )
    return _told(
        design,
        comparison,
        (found.estimate, found.estimate - reach, found.estimate + reach),
        log_e=difference_log_e(found.estimate, found.variance, found.units, planned, alpha),
    )


def _paired(design: Design, statistics: Statistics, metric: Metric, comparison: Comparison, alpha: float) -> Comparison:
    """Of a metric that is measured of both answers to one request, or decided by votes on them."""
    arm = comparison.arm
    if metric.name in VOTES:
        won, lost, _ = votes(statistics, arm, metric.name)
        effect = design.primary.minimum_effect if comparison.primary else DEFAULT_EFFECT
        found = preferred(won, lost, effect=effect, alpha=alpha)
        comparison = msgspec.structs.replace(
            comparison, n=won + lost, control_n=won + lost, value=None, control_value=None
        )
        if not won + lost:
            return comparison
        comparison = msgspec.structs.replace(comparison, value=found.value, control_value=1 - found.value)
        return _told(design, comparison, (found.value - 0.5, found.low - 0.5, found.high - 0.5), log_e=found.log_e)
    value, control_value, count = paired_values(statistics, metric, arm)
    comparison = msgspec.structs.replace(
        comparison, n=count, control_n=0 if control_value is None else count, value=value, control_value=control_value
    )
    between = paired_difference(design, statistics, metric, arm)
    if between is None:
        return comparison
    planned = max(MIN_PLANNED, design.planned().always_valid)
    reach = radius(between.variance, between.units, planned, alpha)
    interval = (between.estimate, between.estimate - reach, between.estimate + reach)
    evidence = difference_log_e(between.estimate, between.variance, between.units, planned, alpha)
    return _told(design, comparison, interval, log_e=evidence)


def _difference(
    design: Design, statistics: Statistics, metric: Metric, arm: str, weighted: Weighted | None = None
) -> Difference | None:
    if design.strategy == "bandit":
        return allocated_difference(design, statistics, metric, arm, weighted=weighted)
    return difference(design, statistics, metric, arm)


def _weighted(metric: Metric, comparison: Comparison, weighted: Weighted) -> Comparison:
    values = weighted.values
    arm, control = values.get(comparison.arm), values.get(comparison.control)
    return msgspec.structs.replace(
        comparison,
        value=None if arm is None else arm * metric.scale,
        control_value=None if control is None else control * metric.scale,
    )


def _at_look(design: Design, statistics: Statistics, comparison: Comparison) -> Comparison:
    """The primary metric as the last planned look saw it, or the first that crossed its boundary."""
    found: Result | None = judged(design, statistics.looks, comparison.arm)
    if found is None:
        return comparison
    taken = found.taken
    comparison = msgspec.structs.replace(
        comparison,
        n=taken.units,
        control_n=taken.control_units,
        value=taken.value,
        control_value=taken.control_value,
        look=found.number,
        belief=None
        if design.bayes is None
        else belief(taken.estimate, taken.variance, design.bayes, design.primary_metric.direction),
    )
    reach = found.boundary * math.sqrt(taken.variance)
    return _told(design, comparison, (taken.estimate, taken.estimate - reach, taken.estimate + reach), log_e=None)


def _told(
    design: Design, comparison: Comparison, interval: tuple[float, float, float], *, log_e: float | None
) -> Comparison:
    """With its interval, and what that says."""
    middle, lower, upper = interval
    good_low, good_high = (lower, upper) if comparison.direction == "up" else (-upper, -lower)
    state: Literal["better", "worse", "no_difference", "open"] = "open"
    effect = design.primary.minimum_effect
    if good_low > 0:
        state = "better"
    elif good_high < 0:
        state = "worse"
    elif comparison.primary and -effect < good_low and good_high < effect:
        state = "no_difference"
    return msgspec.structs.replace(
        comparison,
        estimate=_finite(middle),
        lower=_finite(lower),
        upper=_finite(upper),
        state=state,
        log_e=log_e,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def progress_of(design: Design, statistics: Statistics) -> Iterator[Progress]:
    """How far the primary metric is on its way, by what it has varied until now; nothing for quantiles."""
    metric = design.primary_metric
    if metric.quantile is not None or design.paired:
        return
    for arm in design.treatments:
        found = _difference(design, statistics, metric, arm)
        units = _count(statistics, metric, arm)
        yield progress(design, arm, units, found)


def looks_made(design: Design, statistics: Statistics) -> Iterator[LookMade]:
    """All planned looks, with what those that were taken have seen."""
    if not design.planned_looks:
        return
    for arm in design.treatments:
        bounds = critical(design)
        crossed = False
        for number, boundary in enumerate(bounds, 1):
            look: Look | None = statistics.looks.get(number)
            taken = next((one for one in look.taken if one.arm == arm), None) if look is not None else None
            statistic = taken.estimate / math.sqrt(taken.variance) if taken is not None else None
            over = statistic is not None and abs(statistic) >= boundary and not crossed
            crossed = crossed or over
            yield LookMade(
                number=number,
                fraction=number / design.planned_looks,
                boundary=boundary,
                arm=arm,
                taken=look is not None,
                statistic=statistic,
                crossed=over,
            )


def _total(statistics: Statistics, arm: str, name: str) -> Moments:
    total = Moments()
    for epoch in statistics.shares:
        total = total.merged(statistics.moments.get((epoch, arm, name), Moments()))
    return total


def _count(statistics: Statistics, metric: Metric, arm: str) -> int:
    if metric.quantile is None:
        return _total(statistics, arm, metric.name).units
    return sum(sum(statistics.histograms.get((e, arm, metric.name), {}).values()) for e in statistics.shares)


def _value(statistics: Statistics, metric: Metric, arm: str) -> float | None:
    if metric.quantile is None:
        total = _total(statistics, arm, metric.name)
        return total.top / total.bottom * metric.scale if total.bottom > 0 else None
    seen = [statistics.histograms.get((epoch, arm, metric.name), {}) for epoch in statistics.shares]
    counts = seen[0] if len(seen) == 1 else merged_histogram(seen)
    found = quantile(counts, metric.quantile)
    return _finite(found * metric.scale) if found is not None else None
