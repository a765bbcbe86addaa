"""The verdict: what an experiment shows so far, as a value with its reasons in words.

`judge` is a pure function of the design and the statistics: the same records in the same order give the same verdict, bit for bit. It
may be asked as often as one likes: every statement in it holds at all times together.
"""

import math
from collections.abc import Iterator
from typing import Literal

import msgspec

from penstock.experiments.design import Design
from penstock.experiments.fold import Statistics, guardrail_limit
from penstock.experiments.metrics import METRICS, Metric
from penstock.experiments.sequences import Mismatch, quantile_band, radius, sample_ratio
from penstock.experiments.statistics import Estimate, Moments, estimate, quantile, stratified
from penstock.experiments.words import difference_in_words, guardrail_in_words, mismatch_in_words

MIN_UNITS = 20  # an arm's, before anything is estimated: the central limit theorem needs a few
MIN_PLANNED = 200  # below it the sequence would be tuned to where the theorem does not hold yet
SRM_ALPHA = 0.001

State = Literal["running", "better", "worse", "no_difference", "blocked"]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one treatment against the control; numbers are None until there are enough units (`n` counts those with data)."""

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


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    """How near a guardrail is to tripping: `gauge` is 1 at the limit."""

    metric: str
    arm: str
    evidence: float
    limit: float
    gauge: float
    threshold_s: float | None
    tripped: bool


class ArmTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm has seen over all epochs, and its share in the newest."""

    arm: str
    share: float
    units: int
    requests: int


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """The sample-ratio-mismatch test of the epoch that speaks loudest."""

    epoch: int
    log_e: float
    limit: float
    p_value: float
    found: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at `at` (Unix seconds). `arm` is the treatment that the state speaks of; `tripped` the guardrail, if one did."""

    state: State
    at: float
    reasons: tuple[str, ...]
    arm: str = ""
    tripped: str = ""
    arms: tuple[ArmTraffic, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    guardrails: tuple[Gauge, ...] = ()
    mismatch: SampleRatio | None = None


def judge(design: Design, statistics: Statistics, now: float) -> Verdict:
    """What `statistics` say about `design` at `now`."""
    comparisons = tuple(_comparisons(design, statistics))
    gauges = tuple(_gauges(design, statistics))
    mismatch = _mismatch(design, statistics)
    primaries = [one for one in comparisons if one.primary]
    state, arm, tripped, reasons = _decide(design, primaries, gauges, mismatch)
    return Verdict(
        state=state,
        at=now,
        reasons=tuple(reasons),
        arm=arm,
        tripped=tripped,
        arms=tuple(_traffic(design, statistics)),
        comparisons=comparisons,
        guardrails=gauges,
        mismatch=mismatch,
    )


def _decide(
    design: Design, primaries: list[Comparison], gauges: tuple[Gauge, ...], mismatch: SampleRatio | None
) -> tuple[State, str, str, list[str]]:
    said = [_in_words(design, one) for one in primaries]
    broken = [one for one in gauges if one.tripped]
    if broken:
        reasons = [guardrail_in_words(METRICS[one.metric], one.arm, one.evidence, one.limit) for one in broken]
        return "worse", broken[0].arm, broken[0].metric, reasons + said
    if mismatch is not None and mismatch.found:
        return "blocked", "", "", [mismatch_in_words(mismatch.epoch, mismatch.p_value), *said]
    states = {one.state for one in primaries}
    for state in ("better", "worse", "no_difference"):
        if state in states and (state == "better" or states == {state}):
            first = next(one for one in primaries if one.state == state)
            return state, first.arm, "", said
    return "running", "", "", said


def _in_words(design: Design, comparison: Comparison) -> str:
    one = comparison
    return difference_in_words(
        METRICS[one.metric],
        arm=one.arm,
        control=one.control,
        counts=(one.n, one.control_n),
        values=None if one.value is None or one.control_value is None else (one.value, one.control_value),
        interval=None
        if one.estimate is None or one.lower is None or one.upper is None
        else (one.estimate, one.lower, one.upper),
        state=one.state,
        minimum_effect=design.primary.minimum_effect,
        confidence=1 - design.plan.alpha,
        needed=MIN_UNITS,
    )


def _comparisons(design: Design, statistics: Statistics) -> Iterator[Comparison]:
    """The primary metric first, then all others of which there is anything."""
    names = [design.primary.metric, *(name for name in METRICS if name != design.primary.metric)]
    planned = max(MIN_PLANNED, design.planned().always_valid * len(design.arms))
    for name in names:
        primary = name == design.primary.metric
        for arm in design.treatments:
            one = _compared(design, statistics, METRICS[name], arm, planned)
            if primary or one.n or one.control_n:
                yield one


def _compared(design: Design, statistics: Statistics, metric: Metric, arm: str, planned: int) -> Comparison:
    control = design.incumbent
    primary = metric.name == design.primary.metric
    alpha = design.plan.alpha / len(design.treatments)
    find = _quantile_difference if metric.quantile is not None else _mean_difference
    found = find(design, statistics, metric, arm, planned, alpha)
    values = [_value(statistics, metric, name) for name in (arm, control)]
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
        value=values[0],
        control_value=values[1],
    )
    if found is None:
        return comparison
    middle, lower, upper = found
    good_low, good_high = (lower, upper) if metric.direction == "up" else (-upper, -lower)
    state: Literal["better", "worse", "no_difference", "open"] = "open"
    if good_low > 0:
        state = "better"
    elif good_high < 0:
        state = "worse"
    elif primary and -design.primary.minimum_effect < good_low and good_high < design.primary.minimum_effect:
        state = "no_difference"
    return msgspec.structs.replace(
        comparison, estimate=_finite(middle), lower=_finite(lower), upper=_finite(upper), state=state
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean_difference(
    design: Design, statistics: Statistics, metric: Metric, arm: str, planned: int, alpha: float
) -> tuple[float, float, float] | None:
    strata: list[tuple[Estimate, Estimate]] = []
    for epoch in sorted(statistics.shares):
        pair = [
            estimate(
                statistics.moments.get((epoch, name, metric.name), Moments()),
                metric.scale,
                proportion=metric.type == "proportion",
            )
            for name in (design.incumbent, arm)
        ]
        if pair[0] is not None and pair[1] is not None and min(pair[0].units, pair[1].units) >= MIN_UNITS:
            strata.append((pair[0], pair[1]))
    if not strata:
        return None
    difference, variance, count = stratified(strata)
    if variance <= 0:
        return None  # nothing has varied yet: there is no scale to judge by
    reach = radius(variance, count, planned, alpha)
    return difference, difference - reach, difference + reach


def _quantile_difference(
    design: Design, statistics: Statistics, metric: Metric, arm: str, planned: int, alpha: float
) -> tuple[float, float, float] | None:
    """Of the newest epoch that has both arms; alpha is split over the epochs that the plan can have, and over the two arms."""
    assert metric.quantile is not None
    each = alpha / max(1, len(design.plan.steps)) / 2
    for epoch in sorted(statistics.shares, reverse=True):
        bands = []
        for name in (design.incumbent, arm):
            histogram = statistics.histograms.get((epoch, name, metric.name), {})
            requests = statistics.moments.get((epoch, name, "cost"), Moments())
            if requests.units < MIN_UNITS or not histogram:
                break
            effect = max(1.0, requests.bottom_bottom / requests.bottom)
            bands.append(quantile_band(histogram, metric.quantile, planned // 2, each, effect))
        if len(bands) == 2 and bands[0] is not None and bands[1] is not None:
            control, treatment = bands[0], bands[1]
            ends = (treatment.value - control.value, treatment.low - control.high, treatment.high - control.low)
            if all(not math.isnan(end) for end in ends):
                return ends[0] * metric.scale, ends[1] * metric.scale, ends[2] * metric.scale
            return None
    return None


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
    counts: dict[int, int] = {}
    for epoch in statistics.shares:
        for key, count in statistics.histograms.get((epoch, arm, metric.name), {}).items():
            counts[key] = counts.get(key, 0) + count
    found = quantile(counts, metric.quantile)
    return _finite(found * metric.scale) if found is not None else None


def _gauges(design: Design, statistics: Statistics) -> Iterator[Gauge]:
    limit = guardrail_limit(design)
    for spec in design.guardrails:
        guardrail = statistics.guardrails.get(spec.metric)
        for arm in design.treatments:
            evidence = guardrail.evidence.get(arm, 0.0) if guardrail is not None else 0.0
            yield Gauge(
                metric=spec.metric,
                arm=arm,
                evidence=evidence,
                limit=limit,
                gauge=min(1.0, max(0.0, evidence / limit)),
                threshold_s=guardrail.threshold / 1e9 if guardrail is not None and guardrail.threshold else None,
                tripped=guardrail is not None and guardrail.tripped == arm,
            )


def _mismatch(design: Design, statistics: Statistics) -> SampleRatio | None:
    """Each epoch is a test of its own; its alpha halves from epoch to epoch, so that all together stay under `SRM_ALPHA`."""
    loudest: SampleRatio | None = None
    for number, epoch in enumerate(sorted(statistics.shares), 1):
        alpha = SRM_ALPHA if len(statistics.shares) == 1 and not design.plan.steps else SRM_ALPHA / 2**number
        names = sorted(statistics.shares[epoch])
        counts = [statistics.units(epoch, name) for name in names]
        found: Mismatch = sample_ratio(counts, [statistics.shares[epoch][name] for name in names], alpha)
        one = SampleRatio(
            epoch=epoch,
            log_e=found.log_e if math.isfinite(found.log_e) else 1e9,
            limit=found.limit,
            p_value=found.p_value,
            found=found.found,
        )
        if loudest is None or one.log_e - one.limit > loudest.log_e - loudest.limit:
            loudest = one
    return loudest


def _traffic(design: Design, statistics: Statistics) -> Iterator[ArmTraffic]:
    newest = statistics.shares[max(statistics.shares)] if statistics.shares else {}
    for arm in design.arms:
        yield ArmTraffic(
            arm=arm.name,
            share=newest.get(arm.name, 0.0),
            units=sum(statistics.units(epoch, arm.name) for epoch in statistics.shares),
            requests=sum(statistics.requests(epoch, arm.name) for epoch in statistics.shares),
        )
