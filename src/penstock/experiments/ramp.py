"""What an experiment does next: go on, take the next step of its ramp, or end."""

from typing import Literal

import msgspec

from penstock.experiments.design import Design
from penstock.experiments.fold import Statistics
from penstock.experiments.verdict import Verdict


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running experiment stands."""

    epoch: int
    step: int = 0  # of the plan's steps
    since: float = 0.0  # when this epoch began, Unix seconds


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """`hold`, `advance` to `shares`, or `decide`: then `serving` is the arm that gets all traffic from now on.

    No `serving`: the route goes back to its own targets.
    """

    kind: Literal["hold", "advance", "decide"]
    reasons: tuple[str, ...] = ()
    step: int = 0
    shares: dict[str, float] = {}
    serving: str = ""


def next_move(design: Design, statistics: Statistics, verdict: Verdict, standing: Standing, now: float) -> Move:
    """What to do, given a verdict on what runs.

    Harm ends any experiment with all traffic on the control. An A/B test ends with its verdict and gives the route back to its own
    targets: making the winner one of them is a promotion. A canary takes its next step when the current one has lasted and seen what the
    plan asks for, and ends on the treatment when its last step is all of the traffic.
    """
    control = design.incumbent
    if verdict.state == "worse":
        return Move(kind="decide", serving=control, reasons=verdict.reasons)
    if design.strategy == "ab":
        if verdict.state in {"better", "no_difference"}:
            return Move(kind="decide", reasons=verdict.reasons)
        return Move(kind="hold")
    return _canary(design, statistics, verdict, standing, now)


def _canary(design: Design, statistics: Statistics, verdict: Verdict, standing: Standing, now: float) -> Move:
    plan = design.plan
    treatment = design.treatments[0]
    seen = statistics.units(standing.epoch, treatment)
    if verdict.state == "blocked" or now - standing.since < plan.step_s or seen < plan.step_units:
        return Move(kind="hold")
    step = standing.step + 1
    if step >= len(plan.steps):
        if verdict.state in {"better", "no_difference"}:
            return Move(kind="decide", serving=treatment, reasons=verdict.reasons)
        return Move(kind="hold")
    share = plan.steps[step]
    lasted = (
        f"Step {standing.step + 1} of {len(plan.steps)} lasted {now - standing.since:.0f} s and saw {seen} units of {treatment}; "
        "no guardrail tripped."
    )
    if share >= 1:
        return Move(kind="decide", serving=treatment, reasons=(lasted, *verdict.reasons))
    return Move(
        kind="advance",
        step=step,
        shares={design.incumbent: 1 - share, treatment: share},
        reasons=(lasted, f"{treatment} goes to {share * 100:g} % of the traffic."),
    )
