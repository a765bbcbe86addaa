"""What a bandit shows, and what it does next: it ends when one arm is better than every other one, or none differs from the control."""

import msgspec

from penstock.experiments.bandit_run import (
    allocate,
    allocated_difference,
    arm_names,
    contenders,
    is_due,
    weighted_of,
)
from penstock.experiments.comparisons import MIN_PLANNED
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design
from penstock.experiments.ramp import Move, Standing
from penstock.experiments.sequences import radius
from penstock.experiments.verdict import State, Verdict, judge
from penstock.experiments.words import change_in_words


def judge_bandit(design: Design, statistics: Statistics, now: float) -> Verdict:
    """The verdict on a bandit. Its state is about the best arm: it may be called at every look."""
    base = judge(design, statistics, now)
    said = contenders(design, statistics)
    state, arm, reasons = base.state, base.arm, base.reasons
    if not base.tripped and base.state != "blocked":
        state, arm, word = _leading(design, statistics, base)
        reasons = (word, *base.reasons) if word else base.reasons
    return msgspec.structs.replace(base, state=state, arm=arm, reasons=reasons, contenders=said)


def _leading(design: Design, statistics: Statistics, base: Verdict) -> tuple[State, str, str]:
    """The best arm is named when its difference to each other one is certain.

    A wrong arm is only ever named if its interval against the truly best one is wrong: so alpha is split over the others, not over all
    pairs.
    """
    metric = design.primary_metric
    up = metric.direction == "up"
    weighted = weighted_of(design, statistics, metric)
    values = weighted.values
    arms = arm_names(design)
    if len(values) < len(arms):
        return "running", "", ""
    best = max(values, key=lambda name: values[name] if up else -values[name])
    planned = max(MIN_PLANNED, design.planned().always_valid * len(arms))
    least = []
    for other in arms:
        if other == best:
            continue
        found = allocated_difference(design, statistics, metric, best, other, weighted=weighted)
        if found is None:
            return "running", "", ""
        reach = radius(found.variance, found.units, planned, design.plan.alpha / (len(arms) - 1))
        least.append(found.estimate - reach if up else -found.estimate - reach)
    if min(least) > 0:
        by = change_in_words(metric, min(least)).lstrip("+-")
        word = (
            f"{best} is the best arm: better than every other one by at least {by} in {metric.name.replace('_', ' ')}."
        )
        if best == design.incumbent:
            return "worse", design.treatments[0], word
        return "better", best, word
    primaries = [one for one in base.comparisons if one.primary]
    if primaries and all(one.state == "no_difference" for one in primaries):
        return "no_difference", primaries[0].arm, ""
    return "running", "", ""


def bandit_move(design: Design, statistics: Statistics, verdict: Verdict, standing: Standing, now: float) -> Move:
    """What a bandit does next: the best arm gets all of the traffic once it is certain; until then shares follow what is known."""
    if verdict.state == "worse":
        return Move(kind="decide", serving=design.incumbent, reasons=verdict.reasons, harm=bool(verdict.tripped))
    if verdict.state == "better":
        return Move(kind="decide", serving=verdict.arm, reasons=verdict.reasons)
    if verdict.state == "no_difference":
        return Move(kind="decide", reasons=verdict.reasons)
    if verdict.state == "blocked" or not is_due(
        design, statistics, epoch=standing.epoch, lasted_s=now - standing.since
    ):
        return Move(kind="hold")
    next_one = allocate(design, statistics)
    told = ", ".join(f"{arm} {share * 100:.3g} %" for arm, share in next_one.shares.items())
    return Move(
        kind="advance",
        shares=next_one.shares,
        contexts=next_one.contexts,
        reasons=(f"Epoch {standing.epoch} lasted {now - standing.since:.0f} s; the next shares are {told}.",),
    )
