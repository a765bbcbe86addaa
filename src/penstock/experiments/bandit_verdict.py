"""What a bandit shows, and what it does next: it ends when one arm is better than every other one, or none differs from the control."""

import msgspec

from penstock.experiments.bandit_run import (
    allocate,
    allocated_difference,
    arm_names,
    contenders,
    harmful,
    is_due,
    weighted_of,
)
from penstock.experiments.comparisons import MIN_PLANNED
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design
from penstock.experiments.ramp import Move, Standing
from penstock.experiments.sequences import radius
from penstock.experiments.verdict import State, Verdict, judge
from penstock.experiments.words import change_in_words, mismatch_in_words


def judge_bandit(design: Design, statistics: Statistics, now: float) -> Verdict:
    """The verdict on a bandit. Its state is about the best arm: it may be called at every look.

    An arm that a guardrail speaks against is out, and the others go on; with all treatments out, the control is the best.
    """
    base = judge(design, statistics, now)
    said = contenders(design, statistics)
    out = harmful(design, statistics)
    if len(out) == len(design.treatments):
        return msgspec.structs.replace(base, contenders=said)
    state, arm, reasons = base.state, base.arm, base.reasons
    if out:
        reasons = (f"{' and '.join(out)} {'gets' if len(out) == 1 else 'get'} no more traffic.", *reasons)
    mismatch = base.mismatch
    if mismatch is not None and mismatch.found:
        state, arm = "blocked", ""
        if base.state != "blocked":
            reasons = (mismatch_in_words(mismatch.epoch, mismatch.p_value), *reasons)
    else:
        state, arm, word = _leading(design, statistics, base, out)
        reasons = (word, *reasons) if word else reasons
    return msgspec.structs.replace(base, state=state, arm=arm, tripped="", reasons=reasons, contenders=said)


def _leading(design: Design, statistics: Statistics, base: Verdict, out: tuple[str, ...]) -> tuple[State, str, str]:
    """The best arm is named when its difference to each other one is certain.

    A wrong arm is only ever named if its interval against the truly best one is wrong: so alpha is split over the others, not over all
    pairs.
    """
    metric = design.primary_metric
    up = metric.direction == "up"
    weighted = weighted_of(design, statistics, metric)
    values = weighted.values
    arms = [arm for arm in arm_names(design) if arm not in out]
    if any(arm not in values for arm in arms):
        return "running", "", ""
    best = max(arms, key=lambda name: values[name] if up else -values[name])
    planned = max(MIN_PLANNED, design.planned().always_valid * len(design.arms))
    least = []
    for other in arms:
        if other == best:
            continue
        found = allocated_difference(design, statistics, metric, best, other, weighted=weighted)
        if found is None:
            return "running", "", ""
        reach = radius(found.variance, found.units, planned, design.plan.alpha / len(design.treatments))
        least.append(found.estimate - reach if up else -found.estimate - reach)
    if min(least) > 0:
        by = change_in_words(metric, min(least)).lstrip("+-")
        word = (
            f"{best} is the best arm: better than every other one by at least {by} in {metric.name.replace('_', ' ')}."
        )
        if best == design.incumbent:
            return "worse", next(arm for arm in design.treatments if arm in arms), word
        return "better", best, word
    primaries = [one for one in base.comparisons if one.primary and one.arm not in out]
    if primaries and all(one.state == "no_difference" for one in primaries):
        return "no_difference", primaries[0].arm, ""
    return "running", "", ""


def bandit_move(design: Design, statistics: Statistics, verdict: Verdict, standing: Standing, now: float) -> Move:
    """What a bandit does next: the best arm gets all of the traffic once it is certain; until then shares follow what is known.

    An arm that does harm loses its share at once.
    """
    if verdict.state == "worse":
        return Move(kind="decide", serving=design.incumbent, reasons=verdict.reasons, harm=bool(verdict.tripped))
    if verdict.state == "better":
        return Move(kind="decide", serving=verdict.arm, reasons=verdict.reasons)
    if verdict.state == "no_difference":
        return Move(kind="decide", reasons=verdict.reasons)
    here = statistics.shares.get(standing.epoch, {})
    drops = tuple(arm for arm in harmful(design, statistics) if here.get(arm, 0.0) > 0)
    due = is_due(design, statistics, epoch=standing.epoch, lasted_s=now - standing.since)
    if not drops and (verdict.state == "blocked" or not due):
        return Move(kind="hold")
    next_one = allocate(design, statistics)
    told = ", ".join(f"{arm} {share * 100:.3g} %" for arm, share in next_one.shares.items())
    return Move(
        kind="advance",
        shares=next_one.shares,
        contexts=next_one.contexts,
        drops=drops,
        reasons=(f"Epoch {standing.epoch} lasted {now - standing.since:.0f} s; the next shares are {told}.",),
    )
