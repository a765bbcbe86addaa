"""The verdict: what an experiment shows so far, as a value with its reasons in words.

`judge` is a pure function of the design and the statistics: the same records in the same order give the same verdict, bit for bit. It
may be asked as often as one likes: every statement in it holds at all times together.
"""

import math
from collections.abc import Iterator
from typing import Literal

import msgspec

from penstock.experiments.bandit_run import Contender
from penstock.experiments.compare import MIN_UNITS
from penstock.experiments.comparisons import Comparison, LookMade, comparisons_of, looks_made, progress_of
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design
from penstock.experiments.discovery import discovered
from penstock.experiments.fold import guardrail_limit
from penstock.experiments.pairs import Forecast
from penstock.experiments.progress import Progress
from penstock.experiments.ranking import Ranked
from penstock.experiments.sequences import Mismatch, sample_ratio
from penstock.experiments.votes import Votes
from penstock.experiments.words import (
    difference_in_words,
    findings_in_words,
    guardrail_in_words,
    looks_in_words,
    mismatch_in_words,
    need_in_words,
)

SRM_ALPHA = 0.001

State = Literal["running", "better", "worse", "no_difference", "inconclusive", "blocked"]


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
    progress: tuple[Progress, ...] = ()
    looks: tuple[LookMade, ...] = ()
    contenders: tuple[Contender, ...] = ()  # of a bandit
    votes: tuple[Votes, ...] = ()  # on two answers to one request
    forecasts: tuple[Forecast, ...] = ()  # of a shadow: what an A/B test would say
    ranking: tuple[Ranked, ...] = ()  # of more than two versions that were voted on, the strongest first


def judge(design: Design, statistics: Statistics, now: float) -> Verdict:
    """What `statistics` say about `design` at `now`."""
    comparisons = _with_findings(design, tuple(comparisons_of(design, statistics)))
    gauges = tuple(_gauges(design, statistics))
    mismatch = _mismatch(design, statistics)
    primaries = [one for one in comparisons if one.primary]
    over = bool(design.planned_looks) and len(statistics.looks) >= design.planned_looks
    state, arm, tripped, reasons = _decide(design, primaries, gauges, mismatch, over=over)
    going = tuple(progress_of(design, statistics))
    reasons += _more_in_words(design, statistics, comparisons, going if state == "running" else ())
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
        progress=going,
        looks=tuple(looks_made(design, statistics)),
    )


def _decide(
    design: Design, primaries: list[Comparison], gauges: tuple[Gauge, ...], mismatch: SampleRatio | None, *, over: bool
) -> tuple[State, str, str, list[str]]:
    said = [_in_words(design, one) for one in primaries]
    broken = [one for one in gauges if one.tripped]
    if broken:
        reasons = [guardrail_in_words(design.catalogue[one.metric], one.arm, one.evidence, one.limit) for one in broken]
        return "worse", broken[0].arm, broken[0].metric, reasons + said
    if mismatch is not None and mismatch.found:
        return "blocked", "", "", [mismatch_in_words(mismatch.epoch, mismatch.p_value), *said]
    states = {one.state for one in primaries}
    for state in ("better", "worse", "no_difference"):
        if state in states and (state == "better" or states == {state}):
            first = next(one for one in primaries if one.state == state)
            return state, first.arm, "", said
    return ("inconclusive" if over else "running"), "", "", said


def _more_in_words(
    design: Design, statistics: Statistics, comparisons: tuple[Comparison, ...], going: tuple[Progress, ...]
) -> list[str]:
    """What is worth saying beside the primary metric: the looks, what is still needed, findings in other metrics."""
    said = []
    if design.planned_looks:
        said.append(
            looks_in_words(len(statistics.looks), design.planned_looks, statistics.planned or design.planned_units())
        )
    said += [
        need_in_words(one.arm, one.units, one.needed, design.primary_metric, design.primary.minimum_effect)
        for one in going
        if one.needed is not None and one.needed > one.units
    ]
    found = [one for one in comparisons if one.finding and not one.primary and one.estimate is not None]
    if found:
        said.append(
            findings_in_words(
                [(design.catalogue[one.metric], one.arm, one.estimate or 0.0) for one in found],
                len(comparisons),
                design.plan.discovery_rate,
            )
        )
    return said


def _with_findings(design: Design, comparisons: tuple[Comparison, ...]) -> tuple[Comparison, ...]:
    """All that have an e-value are one family, those of the primary metric among them."""
    evidence = [0.0 if one.log_e is None else one.log_e for one in comparisons]
    findings = discovered(evidence, design.plan.discovery_rate)
    return tuple(
        msgspec.structs.replace(one, finding=finding) if finding else one
        for one, finding in zip(comparisons, findings, strict=True)
    )


def _in_words(design: Design, comparison: Comparison) -> str:
    one = comparison
    return difference_in_words(
        design.catalogue[one.metric],
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
        look=one.look,
    )


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
                tripped=guardrail is not None
                and (guardrail.tripped == arm or (design.strategy == "bandit" and evidence >= limit)),
            )


def _mismatch(design: Design, statistics: Statistics) -> SampleRatio | None:
    """Each epoch is a test of its own; its alpha halves from epoch to epoch, so that all together stay under `SRM_ALPHA`."""
    loudest: SampleRatio | None = None
    once = not design.plan.steps and design.strategy != "bandit"
    for number, (epoch, shares, units) in enumerate(statistics.splits(), 1):
        alpha = SRM_ALPHA if once else SRM_ALPHA / 2**number
        names = sorted(shares)
        found: Mismatch = sample_ratio([units[name] for name in names], [shares[name] for name in names], alpha)
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
