"""Verdicts and moves: what is said, when, and in which words."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.exchange import Exchange, Phases, Usage
from penstock.experiments.design import Design, parse_design
from penstock.experiments.fold import Folding, Statistics, UnitRecord
from penstock.experiments.ramp import Standing, next_move
from penstock.experiments.verdict import Verdict, judge
from tests.experiments.test_design import spec

HALVES = [
    {"name": "control", "pool": "a", "weight": 0.5},
    {"name": "treatment", "pool": "b", "weight": 0.5},
]


def ab(**changes: Any) -> Design:
    return parse_design(spec(**{"arms": HALVES, "plan": {"units": 400}} | changes))


def run(
    design: Design,
    rates: tuple[float, float],
    units: int,
    *,
    seed: int = 1,
    requests: int = 1,
    shares: dict[int, dict[str, float]] | None = None,
    latency: tuple[float, float] = (0.2, 0.2),
) -> Statistics:
    """Statistics of a population whose units succeed at these rates."""
    rng = random.Random(seed)
    statistics = Statistics(shares=shares or {1: design.shares()})
    folding = Folding(design, statistics)
    sequence = 0
    for number in range(units):
        epoch = max(statistics.shares)
        arm = "treatment" if rng.random() < statistics.shares[epoch]["treatment"] else "control"
        treated = arm == "treatment"
        unit = UnitRecord(arm=arm, first_at=0.0, values={}, bad={})
        for _ in range(requests):
            sequence += 1
            took = int(rng.lognormvariate(0, 0.3) * latency[treated] * 1e9)
            exchange = Exchange(
                id=f"r{sequence}",
                at=float(number),
                experiment="e",
                arm=arm,
                epoch=epoch,
                phases=Phases(dispatched=1000, last_token=took, done=took),
                usage=Usage(10, 20),
                cost_nanousd=1000,
            )
            folding.exposed(unit, exchange, sequence)
            folding.told(unit, epoch, "success", int(rng.random() < rates[treated]), sequence)
    return statistics


def test_a_clear_win_is_told_in_words_with_numbers() -> None:
    design = ab()
    verdict = judge(design, run(design, (0.6, 0.85), 800), 5.0)
    assert verdict.state == "better"
    assert verdict.arm == "treatment"
    (said,) = verdict.reasons
    assert said.startswith("Success is 8")
    for part in ("% with treatment (", "% with control (", "points", "95 % confidence", "treatment is better."):
        assert part in said
    primary = verdict.comparisons[0]
    assert primary.primary
    assert primary.lower is not None
    assert primary.upper is not None
    assert 0 < primary.lower < 0.25 < primary.upper
    assert next_move(design, run(design, (0.6, 0.85), 800), verdict, Standing(epoch=1), 9.0).kind == "decide"


def test_harm_is_told_and_puts_all_traffic_on_the_control() -> None:
    design = ab()
    statistics = run(design, (0.85, 0.6), 800)
    verdict = judge(design, statistics, 5.0)
    assert (verdict.state, verdict.arm) == ("worse", "treatment")
    move = next_move(design, statistics, verdict, Standing(epoch=1), 9.0)
    assert (move.kind, move.serving) == ("decide", "control")


def test_the_same_in_both_arms_stays_open_and_then_is_no_difference() -> None:
    design = ab(primary={"metric": "success", "minimum_effect": 0.15}, plan={"units": 800})
    statistics = run(design, (0.7, 0.7), 100)
    verdict = judge(design, statistics, 5.0)
    assert verdict.state == "running"
    assert "still go either way" in verdict.reasons[0]
    assert next_move(design, statistics, verdict, Standing(epoch=1), 9.0).kind == "hold"
    verdict = judge(design, run(design, (0.7, 0.7), 3000), 5.0)
    assert verdict.state == "no_difference"
    assert "no difference of 15.0 points or more" in verdict.reasons[0]


def test_nothing_yet_is_said_as_such() -> None:
    design = ab()
    verdict = judge(design, Statistics(shares={1: design.shares()}), 5.0)
    assert verdict.state == "running"
    assert "Too little is known of success yet" in verdict.reasons[0]
    assert judge(design, Statistics(), 5.0).state == "running"


def test_direction_matters() -> None:
    design = ab(primary={"metric": "latency", "minimum_effect": 0.05})
    verdict = judge(design, run(design, (0.5, 0.5), 400, latency=(0.4, 0.2)), 5.0)
    assert verdict.state == "better"
    assert verdict.comparisons[0].estimate == pytest.approx(-0.2, abs=0.05)
    assert "ms" in verdict.reasons[0]


def test_a_quantile_can_decide() -> None:
    design = ab(primary={"metric": "latency_p95", "minimum_effect": 0.1}, plan={"units": 1500})
    verdict = judge(design, run(design, (0.5, 0.5), 3000, latency=(0.2, 0.6)), 5.0)
    assert verdict.state == "worse"
    same = judge(design, run(design, (0.5, 0.5), 3000), 5.0)
    assert same.state in {"running", "no_difference"}


def test_a_wrong_split_blocks_the_verdict() -> None:
    design = ab()
    wrong = run(design, (0.6, 0.85), 1500, shares={1: {"control": 0.6, "treatment": 0.4}})
    wrong.shares[1] = {"control": 0.5, "treatment": 0.5}
    verdict = judge(design, wrong, 5.0)
    assert verdict.state == "blocked"
    assert "do not fit the shares" in verdict.reasons[0]
    assert next_move(design, wrong, verdict, Standing(epoch=1), 9.0).kind == "hold"


def test_requests_of_one_unit_count_as_one_cluster() -> None:
    design = ab()
    once = judge(design, run(design, (0.6, 0.6), 400), 5.0).comparisons[0]
    many = judge(design, run(design, (0.6, 0.6), 400, requests=10), 5.0).comparisons[0]
    assert once.n == many.n
    assert many.upper is not None
    assert many.lower is not None
    assert once.upper is not None
    assert once.lower is not None
    assert many.upper - many.lower < once.upper - once.lower


def test_epochs_of_a_ramp_are_compared_within_themselves() -> None:
    # The hour of the second step is worse for everybody: pooled, the treatment (mostly there) would look worse.
    design = parse_design(spec(strategy="canary", plan={"steps": [0.1, 0.5], "units": 400}))
    first = run(design, (0.9, 0.9), 1500, seed=2)
    second = run(design, (0.4, 0.4), 1500, seed=3, shares={2: {"control": 0.5, "treatment": 0.5}})
    both = Statistics(
        moments={**first.moments, **second.moments},
        histograms={**first.histograms, **second.histograms},
        shares={**first.shares, **second.shares},
    )
    comparison = judge(design, both, 5.0).comparisons[0]
    assert comparison.value is not None
    assert comparison.control_value is not None
    assert comparison.value < comparison.control_value - 0.1
    assert comparison.estimate == pytest.approx(0.0, abs=0.05)


def test_a_canary_steps_when_its_step_has_lasted_and_seen_enough() -> None:
    design = parse_design(
        spec(
            strategy="canary",
            primary={"metric": "success", "minimum_effect": 0.3},
            plan={"steps": [0.1, 0.5, 1.0], "step_s": 60, "step_units": 50},
        )
    )
    statistics = run(design, (0.7, 0.7), 1000)
    verdict = judge(design, statistics, 100.0)

    def move(step: int, since: float, now: float) -> tuple[str, dict[str, float], str]:
        found = next_move(design, statistics, verdict, Standing(epoch=1, step=step, since=since), now)
        return found.kind, found.shares, found.serving

    assert move(0, 50.0, 100.0)[0] == "hold"
    assert move(0, 0.0, 100.0) == ("advance", {"control": 0.5, "treatment": 0.5}, "")
    assert move(1, 0.0, 100.0) == ("decide", {}, "treatment")
    few = run(design, (0.7, 0.7), 100)
    assert next_move(design, few, judge(design, few, 1.0), Standing(epoch=1), 100.0).kind == "hold"


def test_a_tripped_guardrail_rolls_back_and_says_why() -> None:
    design = parse_design(spec(strategy="canary", guardrails=[{"metric": "success"}], plan={"steps": [0.5]}))
    statistics = run(design, (0.95, 0.3), 300)
    verdict = judge(design, statistics, 1.0)
    assert (verdict.state, verdict.tripped) == ("worse", "success")
    assert verdict.reasons[0].startswith("The guardrail on success tripped")
    assert next(g for g in verdict.guardrails if g.metric == "success").gauge == 1.0
    assert next_move(design, statistics, verdict, Standing(epoch=1), 1.0).serving == "control"


def test_a_watched_aa_test_of_users_with_many_requests_is_seldom_wrong() -> None:
    design = ab(plan={"units": 600}, guardrails=[])
    wrong = 0
    for seed in range(60):
        rng = random.Random(seed)
        statistics = Statistics(shares={1: design.shares()})
        folding = Folding(design, statistics)
        for number in range(1200):
            arm = "treatment" if rng.random() < 0.5 else "control"
            unit = UnitRecord(arm=arm, first_at=0.0, values={}, bad={})
            taste = rng.betavariate(1, 1)  # one user succeeds nearly always, another nearly never
            for _ in range(rng.randint(1, 8)):
                folding.told(unit, 1, "success", int(rng.random() < taste), number)
            if number % 100 == 99 and judge(design, statistics, 1.0).comparisons[0].state in {"better", "worse"}:
                wrong += 1
                break
    assert wrong <= 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_same_statistics_give_the_same_verdict(seed: int) -> None:
    design = ab()
    one, two = (judge(design, run(design, (0.6, 0.7), 60, seed=seed), 5.0) for _ in range(2))
    assert one == two
    assert isinstance(one, Verdict)
