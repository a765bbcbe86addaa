"""What a canary does next: it ends on the treatment only when harm beyond the margin is left out, and says what it waits for."""

from penstock.experiments.design import Design, parse_design
from penstock.experiments.fold import Statistics
from penstock.experiments.ramp import Move, Standing, harm_bounds, next_move
from penstock.experiments.verdict import judge
from tests.experiments.test_design import spec
from tests.experiments.test_verdict import run


def canary(margin: float, **plan: object) -> Design:
    return parse_design(
        spec(
            strategy="canary",
            unit="request",
            primary={"metric": "success", "minimum_effect": margin},
            guardrails=[],
            plan={"steps": [0.5, 1.0], "step_s": 10, "step_units": 20, **plan},
        )
    )


def moved(design: Design, statistics: Statistics, now: float = 100.0, step: int = 0) -> Move:
    return next_move(design, statistics, judge(design, statistics, now), Standing(epoch=1, step=step), now)


def test_what_it_waits_for_is_said() -> None:
    design = canary(0.05)
    few = run(design, (0.7, 0.7), 20)
    move = moved(design, few, now=4.0)
    assert move.kind == "hold"
    assert "6 s more and" in move.reasons[0]
    assert "more units of treatment" in move.reasons[0]
    unsure = moved(design, run(design, (0.7, 0.7), 300))
    assert unsure.kind == "hold"
    assert "until it is certain that treatment is not worse by more than 5.0 points in success" in unsure.reasons[0]


def test_no_harm_beyond_the_margin_promotes_and_harm_beyond_it_ends() -> None:
    design = canary(0.2)
    good = moved(design, run(design, (0.7, 0.7), 1500))
    assert (good.kind, good.serving, good.harm) == ("decide", "treatment", False)
    assert "leaves out that treatment is worse by more than 20.0 points" in good.reasons[1]
    bad = moved(design, run(design, (0.9, 0.4), 1500))
    assert (bad.kind, bad.serving, bad.harm) == ("decide", "control", True)


def test_worse_within_the_margin_is_no_harm() -> None:
    design = canary(0.3)
    statistics = run(design, (0.8, 0.68), 4000)
    assert judge(design, statistics, 1.0).state == "worse"
    worst, best = harm_bounds(design, judge(design, statistics, 1.0))
    assert 0 < worst < best < 0.3
    assert moved(design, statistics).serving == "treatment"
