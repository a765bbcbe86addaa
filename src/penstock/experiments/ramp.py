"""What an experiment does next: go on, take the next step of its ramp, or end."""

import math
from typing import Literal

import msgspec

from penstock.experiments.design import Design
from penstock.experiments.fold import Statistics
from penstock.experiments.verdict import Verdict
from penstock.experiments.words import change_in_words


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running experiment stands."""

    epoch: int
    step: int = 0  # of the plan's steps
    since: float = 0.0  # when this epoch began, Unix seconds


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """`hold`, `advance` to `shares`, or `decide`: then `serving` is the arm that gets all traffic from now on.

    No `serving`: the route goes back to its own targets. `harm`: it ends because the treatment does harm. A `hold` tells in `reasons`
    what it waits for.
    """

    kind: Literal["hold", "advance", "decide"]
    reasons: tuple[str, ...] = ()
    step: int = 0
    shares: dict[str, float] = {}
    contexts: dict[str, dict[str, float]] = {}  # of a bandit: shares within each context
    serving: str = ""
    harm: bool = False
    drops: tuple[
        str, ...
    ] = ()  # arms that an advance takes all traffic from because they do harm: it waits for nothing


def next_move(design: Design, statistics: Statistics, verdict: Verdict, standing: Standing, now: float) -> Move:
    """What to do, given a verdict on what runs.

    Harm ends any experiment with all traffic on the control: a guardrail that has tripped, or a primary metric that is worse; of a canary,
    worse by more than the smallest effect worth seeing, which is its margin. An A/B test ends with its verdict and gives the route back
    to its own targets: making the winner one of them is a promotion. A canary takes its next step when the current one has lasted and
    seen what the plan asks for. It gets all of the traffic only when the confidence sequence of the primary metric leaves out harm beyond the margin.
    """
    control = design.incumbent
    if verdict.state == "worse" and (verdict.tripped or design.strategy != "canary"):
        return Move(kind="decide", serving=control, reasons=verdict.reasons, harm=True)
    if design.strategy == "ab":
        if verdict.state in {"better", "no_difference", "inconclusive"}:
            return Move(kind="decide", reasons=verdict.reasons)
        return Move(kind="hold")
    return _canary(design, statistics, verdict, standing, now)


def _canary(design: Design, statistics: Statistics, verdict: Verdict, standing: Standing, now: float) -> Move:
    plan = design.plan
    treatment = design.treatments[0]
    worst, best = harm_bounds(design, verdict)
    margin = design.primary.minimum_effect
    if worst > margin:
        return Move(kind="decide", serving=design.incumbent, reasons=verdict.reasons, harm=True)
    if verdict.state == "blocked":
        return Move(kind="hold", reasons=verdict.reasons[:1])
    seen = statistics.units(standing.epoch, treatment)
    lacking = []
    if now - standing.since < plan.step_s:
        lacking.append(f"{plan.step_s - (now - standing.since):.0f} s more")
    if seen < plan.step_units:
        lacking.append(f"{plan.step_units - seen} more units of {treatment}")
    if lacking:
        return Move(
            kind="hold", reasons=(f"Step {standing.step + 1} of {len(plan.steps)} waits for {' and '.join(lacking)}.",)
        )
    lasted = (
        f"Step {standing.step + 1} of {len(plan.steps)} lasted {now - standing.since:.0f} s and saw {seen} units of {treatment}; "
        "no guardrail tripped."
    )
    step = standing.step + 1
    if step < len(plan.steps) and plan.steps[step] < 1:
        share = plan.steps[step]
        return Move(
            kind="advance",
            step=step,
            shares={design.incumbent: 1 - share, treatment: share},
            reasons=(lasted, f"{treatment} goes to {share * 100:g} % of the traffic."),
        )
    most = change_in_words(design.primary_metric, margin).lstrip("+")
    name = design.primary.metric.replace("_", " ")
    if best <= margin:
        said = f"The confidence sequence leaves out that {treatment} is worse by more than {most} in {name}."
        return Move(kind="decide", serving=treatment, reasons=(lasted, said, *verdict.reasons))
    return Move(
        kind="hold",
        reasons=(
            f"All of the traffic waits until it is certain that {treatment} is not worse by more than {most} in {name}.",
        ),
    )


def harm_bounds(design: Design, verdict: Verdict) -> tuple[float, float]:
    """How much worse the treatment is in the primary metric, in its unit: at least, and at most; both infinite while nothing is known."""
    for one in verdict.comparisons:
        if one.primary and one.lower is not None and one.upper is not None:
            return (-one.upper, -one.lower) if one.direction == "up" else (one.lower, one.upper)
    return -math.inf, math.inf
