"""What a shadow or an interleaved experiment shows, and what it does next."""

import math

import msgspec

from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design
from penstock.experiments.paired_metrics import PAIRED, VOTES
from penstock.experiments.pairs import Forecast, forecast, total_of, votes
from penstock.experiments.preference import DEFAULT_EFFECT, preferred
from penstock.experiments.ramp import Move
from penstock.experiments.ranking import best_of, ranked, ranking_in_words
from penstock.experiments.sequences import best_rho, normal_mixture_bound
from penstock.experiments.strategies import InterleavedSpec, ShadowSpec
from penstock.experiments.verdict import Verdict, judge
from penstock.experiments.votes import Votes
from penstock.experiments.words import change_in_words

BURST_S = 60.0  # of a paced budget: so much of it may be spent at once


def judge_pairs(design: Design, statistics: Statistics, now: float) -> Verdict:
    """The verdict, with the votes as strengths and, of a shadow, the forecast of an A/B test."""
    base = _if_as_many_finish(design, judge(design, statistics, now))
    cast = tuple(
        one for arm in design.treatments for name in VOTES if (one := _votes(design, statistics, arm, name)) is not None
    )
    ahead = tuple(_forecasts(design, statistics)) if design.strategy == "shadow" else ()
    reasons = (*base.reasons, *_in_words(design, statistics, ahead))
    traffic = tuple(
        msgspec.structs.replace(one, share=1.0) if one.arm == design.incumbent else one for one in base.arms
    )  # it answers everybody
    ranking = tuple(one for name in VOTES for one in ranked(design, statistics, name))
    told = msgspec.structs.replace(base, votes=cast, forecasts=ahead, reasons=reasons, arms=traffic, ranking=ranking)
    if ranking and design.primary.metric in VOTES:
        return _of_the_best(design, statistics, told)
    return told


def _if_as_many_finish(design: Design, base: Verdict) -> Verdict:
    """An arm is not better by what only finished answers have, where certainly fewer of its answers come to their end."""
    if base.state != "better" or not design.primary_metric.finished:
        return base
    fewer = {one.arm for one in base.comparisons if one.metric == "completion" and (one.upper or 0.0) < 0}
    if base.arm not in fewer:
        return base
    word = (
        f"Fewer of {base.arm}'s answers come to their end than of {design.incumbent}'s, so "
        f"{design.primary.metric.replace('_', ' ')}, which tells of finished ones, does not call it better."
    )
    return msgspec.structs.replace(base, state="worse", reasons=(word, *base.reasons))


def _of_the_best(design: Design, statistics: Statistics, base: Verdict) -> Verdict:
    """Of several versions the best is named, not the first that beats the control."""
    mine = tuple(one for one in base.ranking if one.metric == design.primary.metric)
    state, arm = base.state, base.arm
    if state != "blocked":
        best = best_of(design, statistics, design.primary.metric)
        if best == design.incumbent:
            state, arm = "worse", next(one.arm for one in mine if one.arm != best)
        elif best:
            state, arm = "better", best
        elif state == "better":
            state, arm = "running", ""
    words = ranking_in_words(mine, design.incumbent)
    return msgspec.structs.replace(base, state=state, arm=arm, reasons=(*words, *base.reasons))


def _votes(design: Design, statistics: Statistics, arm: str, name: str) -> Votes | None:
    won, lost, ties = votes(statistics, arm, name)
    if not won + lost + ties:
        return None
    alpha = design.plan.alpha / len(design.treatments)
    effect = design.primary.minimum_effect if name == design.primary.metric else DEFAULT_EFFECT
    found = preferred(won, lost, effect=effect, alpha=alpha)
    return Votes(
        metric=name,
        arm=arm,
        control=design.incumbent,
        won=won,
        lost=lost,
        ties=ties,
        share=found.value,
        lower=found.low,
        upper=found.high,
        evidence=found.log_e,
        limit=math.log(1 / alpha),
        strength=_logit(found.value),
        strength_lower=_logit(found.low),
        strength_upper=_logit(found.high),
    )


def _logit(share: float) -> float | None:
    """The Bradley-Terry strength of one of two, the other one's being 0; None where it is infinite."""
    return math.log(share / (1 - share)) if 0 < share < 1 else None


def _forecasts(design: Design, statistics: Statistics) -> list[Forecast]:
    """Of each metric that an A/B test could measure, at the planned size."""
    alpha = design.plan.alpha / len(design.treatments)
    units = design.planned().always_valid
    planned = units * 2
    critical = normal_mixture_bound(planned, alpha, best_rho(planned, alpha)) / math.sqrt(planned)
    found = [
        forecast(statistics, metric, arm, units=units, critical=critical)
        for arm in design.treatments
        for name, metric in PAIRED.items()
        if name not in {*VOTES, "similarity", "same_answer"}
    ]
    return [one for one in found if one is not None]


def _in_words(design: Design, statistics: Statistics, ahead: tuple[Forecast, ...]) -> list[str]:
    said = []
    for one in ahead:
        if one.metric == design.primary.metric:
            metric = PAIRED[one.metric]
            said.append(
                f"An A/B test of {one.units:,} units an arm would report {change_in_words(metric, one.lower)} to "
                f"{change_in_words(metric, one.upper)} for {one.arm} (95 %), and call it better with a chance of "
                f"{100 * one.better:.0f} %, worse with {100 * one.worse:.0f} %."
            )
    for arm in design.treatments:
        same = total_of(statistics, arm, "same_answer")
        if design.strategy == "shadow" and same.bottom:
            share = 100 * same.top / same.bottom
            said.append(
                f"{share:.0f} % of {arm}'s answers have the same words as the control's: in whatever is told of answers, the two can "
                f"differ by at most {100 - share:.0f} points."
            )
    return said


def pair_move(design: Design, statistics: Statistics, verdict: Verdict) -> Move:
    """It ends with its verdict, or when its budget is spent; the route goes on as it was."""
    spent = spent_usd(design, statistics)
    budget = spec_of(design).budget_usd
    if verdict.state in {"better", "worse", "no_difference"}:
        return Move(kind="decide", reasons=verdict.reasons)
    if budget is not None and spent >= budget:
        return Move(kind="decide", reasons=(f"The budget of ${budget:g} is spent (${spent:.4g}).", *verdict.reasons))
    return Move(kind="hold")


def spec_of(design: Design) -> ShadowSpec | InterleavedSpec:
    """What it declares of its dose."""
    if design.strategy == "shadow":
        return design.shadow or ShadowSpec()
    return design.interleaved or InterleavedSpec()


def spent_usd(design: Design, statistics: Statistics) -> float:
    """What the second answers have cost."""
    return sum(total_of(statistics, arm, "cost").top for arm in design.treatments) * 1e-9


def dose_of(design: Design, statistics: Statistics, *, ran_s: float, dose: float | None = None) -> float:
    """The share of requests that a second arm answers now: none from when more was spent than the pace allows until half a burst is free again.

    So it changes at most twice in half of `BURST_S`, however long the experiment runs.

    Args:
        design: what was registered.
        statistics: with what was spent.
        ran_s: how long the experiment has run.
        dose: the share until now; None: as registered.
    """
    spec = spec_of(design)
    if spec.usd_per_hour is None:
        return spec.share
    burst = spec.usd_per_hour * BURST_S / 3600
    left = spec.usd_per_hour * max(0.0, ran_s) / 3600 + burst - spent_usd(design, statistics)
    enough = burst / 2 if dose == 0 else 0.0
    return spec.share if left > enough else 0.0
