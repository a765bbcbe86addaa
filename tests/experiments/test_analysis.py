"""What a design may declare beside its metric: events, limits, strata, a covariate, planned looks, a prior; and findings over all."""

import math
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.exchange import Exchange, Observation, Phases
from penstock.experiments.bayes import belief
from penstock.experiments.compare import difference
from penstock.experiments.counted import Layer, Statistics, UnitRecord
from penstock.experiments.declared import Prior
from penstock.experiments.design import Design, parse_design
from penstock.experiments.discovery import discovered
from penstock.experiments.fold import Folding
from penstock.experiments.statistics import Moments, bucket_of
from penstock.experiments.verdict import judge
from tests.experiments.test_design import spec

HALVES = [{"name": "control", "pool": "a"}, {"name": "treatment", "pool": "b"}]


def design_of(**changes: Any) -> Design:
    base = spec(arms=HALVES, guardrails=[], plan={"units": 400})
    return parse_design(base | changes)


def event(name: str, value: float | None = None, at: float = 10.0) -> Observation:
    return Observation(id="e", at=at, received=at, kind="event", tenant="t", request="r", name=name, value=value)


class Run:
    """Units that are folded one after the other."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.statistics = Statistics(shares={1: design.shares()})
        self.folding = Folding(design, self.statistics)
        self.sequence = 0

    def unit(self, arm: str, *, past: int = 0, **changes: Any) -> UnitRecord:
        self.sequence += 1
        unit = UnitRecord(arm=arm, first_at=0.0, values={}, bad={}, past=past)
        base: dict[str, Any] = {
            "id": f"r{self.sequence}",
            "at": 0.0,
            "experiment": "e",
            "arm": arm,
            "epoch": 1,
            "tenant": "t",
        }
        self.folding.exposed(unit, Exchange(**base | {"phases": Phases(done=10**8)} | changes), self.sequence)
        return unit

    def happened(self, unit: UnitRecord, observation: Observation) -> str:
        return self.folding.happened(unit, 1, observation, self.sequence)

    def told(self, unit: UnitRecord, success: bool) -> None:
        self.folding.told(unit, 1, "success", int(success), self.sequence)

    def moments(self, arm: str, metric: str) -> Moments:
        return self.statistics.moments[1, arm, metric]


# -- declared metrics ------------------------------------------------------------------------------------------------

DECLARED: list[dict[str, Any]] = [
    {"name": "bought", "event": "purchase", "type": "proportion"},
    {"name": "revenue", "event": "purchase", "type": "mean", "unit": "EUR"},
    {"name": "basket", "event": "purchase", "type": "ratio", "unit": "EUR"},
    {"name": "basket_p90", "event": "purchase", "type": "quantile", "quantile": 0.9, "unit": "EUR"},
    {"name": "back_next_day", "event": "visit", "type": "proportion", "after_s": 86400, "within_s": 172800},
]


def test_events_become_the_metrics_that_were_declared() -> None:
    run = Run(design_of(metrics=DECLARED, primary={"metric": "revenue", "minimum_effect": 1.0}))
    buyer, other = run.unit("treatment"), run.unit("treatment")
    assert run.happened(buyer, event("purchase", 20.0)) == ""
    assert run.happened(buyer, event("purchase", 30.0)) == ""
    for at in (60.0, 86400.0, 172801.0):
        run.happened(other, event("visit", at=at))
    assert run.moments("treatment", "bought") == Moments(2, 1, 2, 1, 2, 1)
    revenue = run.moments("treatment", "revenue")
    assert (revenue.units, revenue.top, revenue.bottom) == (2, 50_000_000, 2)
    basket = run.moments("treatment", "basket")
    assert (basket.units, basket.top, basket.bottom) == (1, 50_000_000, 2)
    assert run.statistics.histograms[1, "treatment", "basket_p90"] == {
        bucket_of(20_000_000): 1,
        bucket_of(30_000_000): 1,
    }
    assert run.moments("treatment", "back_next_day").top == 1
    assert run.happened(other, event("nobody_reads_this")) == ""
    assert not run.folding.hears(event("nobody_reads_this"))


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 1e300, -1e7])
def test_an_event_that_measures_nothing_counts_as_having_happened_and_no_more(value: float | None) -> None:
    run = Run(design_of(metrics=DECLARED))
    unit = run.unit("control")
    reason = run.happened(unit, event("purchase", value))
    assert reason == ("event_without_value" if value is None else "")
    assert run.moments("control", "bought").top == 1
    assert run.moments("control", "revenue").top == 0
    assert (1, "control", "basket") not in run.statistics.moments
    assert (1, "control", "basket_p90") not in run.statistics.histograms


def test_negative_values_are_values_and_have_the_lowest_place_in_a_histogram() -> None:
    run = Run(design_of(metrics=DECLARED))
    run.happened(run.unit("control"), event("purchase", -5.0))
    assert run.moments("control", "revenue").top == -5_000_000
    assert run.statistics.histograms[1, "control", "basket_p90"] == {bucket_of(0): 1}


def test_what_evaluators_tell_is_built_in() -> None:
    run = Run(design_of())
    unit = run.unit("treatment")
    for name, value in (
        ("accuracy", 1.0),
        ("accuracy", 0.0),
        ("toxicity", 0.25),
        ("relevance", 0.5),
        ("session_length", 90.0),
    ):
        assert run.happened(unit, event(name, value)) == ""
    run.happened(unit, event("retention"))
    verdict = judge(run.design, run.statistics, 1.0)
    values = {one.metric: one.value for one in verdict.comparisons}
    assert {name: values[name] for name in ("accuracy", "toxicity", "relevance", "session_length", "retention")} == {
        "accuracy": 0.5,
        "toxicity": 0.25,
        "relevance": 0.5,
        "session_length": 90.0,
        "retention": 1.0,
    }


def test_values_beyond_the_declared_limits_count_as_the_limits() -> None:
    limits = {"revenue": [0, 40], "basket": [0, 25], "rating": [-0.5, 0.5]}
    run = Run(design_of(metrics=DECLARED, winsorise=limits))
    unit = run.unit("control")
    for value in (20.0, 30.0):
        run.happened(unit, event("purchase", value))
    run.folding.told(unit, 1, "rating", 900_000, 1)
    assert run.moments("control", "revenue").top == 40_000_000  # a unit's sum
    assert run.moments("control", "basket").top == 45_000_000  # each value
    assert run.moments("control", "rating").top == 500_000
    run.happened(unit, event("purchase", -30.0))
    assert run.moments("control", "revenue") == Moments(1, 20_000_000, 1, 4 * 10**14, 1, 20_000_000)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"metrics": [{**DECLARED[0], "name": "success"}]}, "metrics[0].name"),
        ({"metrics": [DECLARED[0], DECLARED[0]]}, "metrics[1].name"),
        ({"metrics": [{**DECLARED[0], "name": "Not a name"}]}, "metrics[0].name"),
        ({"metrics": [{**DECLARED[0], "event": ""}]}, "metrics[0].event"),
        ({"metrics": [{**DECLARED[0], "type": "guess"}]}, "metrics[0].type"),
        ({"metrics": [{**DECLARED[3], "quantile": None}]}, "metrics[0].quantile"),
        ({"metrics": [{**DECLARED[3], "quantile": 1.0}]}, "metrics[0].quantile"),
        ({"metrics": [{**DECLARED[0], "quantile": 0.5}]}, "metrics[0].quantile"),
        ({"metrics": [{**DECLARED[4], "within_s": 5}]}, "metrics[0].within_s"),
        ({"metrics": [{**DECLARED[4], "after_s": -1}]}, "metrics[0].after_s"),
        ({"metrics": [{**DECLARED[0], "name": f"m{n}"} for n in range(21)]}, "metrics"),
        ({"winsorise": {"beauty": [0, 1]}}, "winsorise.beauty"),
        ({"winsorise": {"success": [0, 1]}}, "winsorise.success"),
        ({"winsorise": {"rating": [1, 0]}}, "winsorise.rating"),
        ({"stratify": {"by": "tenant", "values": []}}, "stratify.values"),
        ({"stratify": {"by": "stream", "values": ["maybe"]}}, "stratify.values[0]"),
        ({"covariate": {"days": 0}}, "covariate.days"),
        ({"covariate": {"metric": "conversion"}}, "covariate.metric"),
        ({"covariate": {}, "unit": "request"}, "covariate"),
        ({"covariate": {}, "primary": {"metric": "latency_p95", "minimum_effect": 0.1}}, "covariate"),
        ({"bayes": {"deviation": 0}}, "bayes.deviation"),
        ({"bayes": {"mean": math.inf}}, "bayes.mean"),
        (
            {"plan": {"inference": "fixed"}, "primary": {"metric": "latency_p95", "minimum_effect": 0.1}},
            "plan.inference",
        ),
        ({"plan": {"inference": "fixed", "steps": [0.1]}, "strategy": "canary"}, "plan.inference"),
        ({"plan": {"looks": 0}}, "plan.looks"),
        ({"plan": {"discovery_rate": 0}}, "plan.discovery_rate"),
    ],
)
def test_what_is_declared_wrongly_is_refused_by_its_path(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        design_of(**changes)
    assert refused.value.param == param


# -- strata and the covariate ----------------------------------------------------------------------------------------


def test_strata_keep_a_mixed_population_apart() -> None:
    """Tenant a is happy and mostly in the control, b is not and mostly in the treatment: pooled, the treatment looks worse."""
    run = Run(design_of(stratify={"by": "tenant", "values": ["a", "b"]}))
    rng = random.Random(5)
    for tenant, rate, treated in (("a", 0.9, 0.2), ("b", 0.3, 0.8), ("c", 0.6, 0.5)):
        for _ in range(400):
            arm = "treatment" if rng.random() < treated else "control"
            run.told(run.unit(arm, tenant=tenant), rng.random() < rate)
    assert {cell[1] for cell in run.statistics.layers} == {"", "a", "b"}
    comparison = judge(run.design, run.statistics, 1.0).comparisons[0]
    assert comparison.value is not None
    assert comparison.control_value is not None
    assert comparison.value < comparison.control_value - 0.1
    assert comparison.estimate == pytest.approx(0.0, abs=0.06)


@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(1, 5), st.integers(-50, 50)), min_size=2, max_size=12))
def test_layers_merge_in_any_order(units: list[tuple[int, int, int]]) -> None:
    def counted(part: list[tuple[int, int, int]]) -> Layer:
        total = Layer()
        for top, bottom, past in part:
            total = total.moved((0, 0), (top, bottom), past)
        return total

    middle = len(units) // 2
    assert counted(units[:middle]).merged(counted(units[middle:])) == counted(units) == counted(units[::-1])


def covaried(seed: int, effect: float = 0.0, units: int = 1000) -> Run:
    """Ratings that mostly depend on who gives them; the covariate is what the same person gave before."""
    run = Run(
        design_of(
            covariate={"metric": "rating"}, primary={"metric": "rating", "minimum_effect": 0.1}, plan={"units": units}
        )
    )
    rng = random.Random(seed)
    for _ in range(units):
        arm = rng.choice(("control", "treatment"))
        taste = rng.gauss(0, 1)
        unit = run.unit(arm, past=round(1000 * (taste + rng.gauss(0, 0.3))))
        value = taste + rng.gauss(0, 0.3) + (effect if arm == "treatment" else 0.0)
        run.folding.told(unit, 1, "rating", round(1e6 * value), 1)
    return run


def test_the_past_explains_most_of_the_variance() -> None:
    run = covaried(7, effect=0.1)
    comparison = judge(run.design, run.statistics, 1.0).comparisons[0]
    # cor(now, past) = 1 / 1.09, so 1 - cor^2 = 16 % of the variance are left (Deng et al. 2013, equation 5)
    assert comparison.spared == pytest.approx(1 / 1.09**2, abs=0.03)
    assert comparison.estimate == pytest.approx(0.1, abs=0.06)
    plain = parse_design(msgspec.to_builtins(run.design) | {"covariate": None})
    without = difference(plain, run.statistics, plain.primary_metric, "treatment")
    adjusted = difference(run.design, run.statistics, run.design.primary_metric, "treatment")
    assert without is not None
    assert adjusted is not None
    assert adjusted.variance == pytest.approx(without.variance * (1 - 1 / 1.09**2), rel=0.15)


def test_the_adjusted_estimate_is_that_of_a_regression_on_the_past() -> None:
    run = covaried(11, effect=0.2, units=400)
    layers = {arm: run.statistics.layers[1, "", arm, "rating"] for arm in ("control", "treatment")}
    assert sum(one.moments.units for one in layers.values()) == 400
    found = difference(run.design, run.statistics, run.design.primary_metric, "treatment")
    assert found is not None
    rng = random.Random(11)
    rows = []
    for _ in range(400):
        treated = rng.choice(("control", "treatment")) == "treatment"
        taste = rng.gauss(0, 1)
        past = round(1000 * (taste + rng.gauss(0, 0.3)))
        rows.append((1.0, float(treated), float(past), round(1e6 * (taste + rng.gauss(0, 0.3) + 0.2 * treated)) / 1e6))
    table = np.array(rows)
    slopes = np.linalg.lstsq(table[:, :3], table[:, 3], rcond=None)[0]
    assert found.estimate == pytest.approx(slopes[1], rel=1e-9)


def test_with_a_covariate_a_watched_aa_test_is_seldom_wrong() -> None:
    wrong = 0
    for seed in range(40):
        run = covaried(seed, units=600)
        wrong += judge(run.design, run.statistics, 1.0).comparisons[0].state in {"better", "worse"}
    assert wrong <= 3


# -- planned looks ---------------------------------------------------------------------------------------------------


def planned(rates: tuple[float, float], seed: int = 1, units: int = 800, **plan: Any) -> Run:
    run = Run(design_of(plan={"units": 400, "inference": "group_sequential", "looks": 4} | plan))
    rng = random.Random(seed)
    for _ in range(units):
        arm = rng.choice(("control", "treatment"))
        run.told(run.unit(arm), rng.random() < rates[arm == "treatment"])
    return run


def test_looks_are_taken_when_they_are_due_and_not_in_between() -> None:
    run = planned((0.5, 0.5), units=599)
    assert sorted(run.statistics.looks) == [1, 2]
    assert [look.sequence for look in run.statistics.looks.values()] == [200, 400]
    before = judge(run.design, run.statistics, 1.0)
    assert before.comparisons[0].look == 2
    assert "at planned look 2" in before.reasons[0]
    assert "2 of 4 planned looks have been taken; the next is at 300 units" in " ".join(before.reasons)
    run.told(run.unit("treatment"), True)
    assert judge(run.design, run.statistics, 1.0).comparisons[0].look == 3
    assert [round(one.boundary, 2) for one in before.looks] == [4.33, 2.96, 2.36, 2.01]
    assert [one.statistic is not None for one in before.looks] == [True, True, False, False]


def test_the_first_look_that_crosses_decides_for_good() -> None:
    run = planned((0.3, 0.8))
    verdict = judge(run.design, run.statistics, 1.0)
    assert verdict.state == "better"
    first = next(one for one in verdict.looks if one.crossed)
    assert verdict.comparisons[0].look == first.number
    assert sum(one.crossed for one in verdict.looks) == 1


def test_after_the_last_look_it_is_over() -> None:
    run = planned((0.5, 0.5), seed=4)
    verdict = judge(run.design, run.statistics, 1.0)
    assert verdict.state == "inconclusive"
    assert "All planned looks have been taken" in verdict.reasons[-1]
    for _ in range(500):  # whatever comes later changes nothing
        run.told(run.unit("treatment"), True)
    assert judge(run.design, run.statistics, 1.0).comparisons[0] == verdict.comparisons[0]


def test_one_look_is_welchs_test() -> None:
    run = planned((0.5, 0.62), seed=2, inference="fixed")
    (look,) = run.statistics.looks.values()
    taken = look.taken[0]
    assert look.fraction == 1.0
    assert taken.freedom is not None
    assert taken.freedom < 800
    comparison = judge(run.design, run.statistics, 1.0).comparisons[0]
    assert comparison.upper is not None
    reach = (comparison.upper - taken.estimate) / math.sqrt(taken.variance)
    assert 1.960 < reach < 1.9645  # t with nearly 800 degrees of freedom


def test_planned_sizes_follow_the_kind_of_inference() -> None:
    sizes = {
        kind: design_of(plan={"baseline": 0.2, "inference": kind}).planned_units()
        for kind in ("fixed", "group_sequential", "always_valid")
    }
    assert sizes == {"fixed": 1094, "group_sequential": 1122, "always_valid": 2095}


# -- beside the verdict ----------------------------------------------------------------------------------------------


def test_power_while_it_runs_says_what_is_needed() -> None:
    run = Run(
        design_of(plan={"baseline": 0.5, "inference": "fixed"}, primary={"metric": "success", "minimum_effect": 0.1})
    )
    rng = random.Random(3)
    for _ in range(300):
        run.told(run.unit(rng.choice(("control", "treatment"))), rng.random() < 0.1)
    verdict = judge(run.design, run.statistics, 1.0)
    (progress,) = verdict.progress
    assert progress.planned == 388  # for one half; one tenth varies less
    assert progress.needed is not None
    assert 110 < progress.needed < 200
    assert progress.detectable is not None
    assert progress.detectable < 0.1
    assert progress.power is not None
    assert progress.power > 0.95
    start = judge(run.design, Statistics(shares={1: run.design.shares()}), 1.0)
    assert start.progress[0].needed is None


def test_a_belief_beside_the_verdict() -> None:
    flat = belief(0.02, 0.01**2, Prior(), "up")
    assert flat.chance_better == pytest.approx(0.97725, abs=1e-5)
    assert [flat.lower, flat.upper] == pytest.approx([0.0004, 0.0396], abs=1e-5)
    rng = np.random.default_rng(2)
    draws = rng.normal(0.02, 0.01, 400_000)
    assert flat.expected_loss == pytest.approx(np.maximum(-draws, 0).mean(), rel=0.05)
    sceptical = belief(0.02, 0.01**2, Prior(mean=0.0, deviation=0.01), "up")
    assert sceptical.mean == pytest.approx(0.01)
    assert sceptical.deviation == pytest.approx(0.01 / math.sqrt(2))
    assert belief(0.02, 0.01**2, Prior(), "down").chance_better == pytest.approx(1 - flat.chance_better)
    run = planned((0.5, 0.7), inference="always_valid")
    assert judge(run.design, run.statistics, 1.0).comparisons[0].belief is None
    asked = parse_design(msgspec.to_builtins(run.design) | {"bayes": {}})
    told = judge(asked, run.statistics, 1.0).comparisons[0].belief
    assert told is not None
    assert told.chance_better > 0.99


def test_findings_keep_their_rate() -> None:
    assert discovered([math.log(50), 0.0, math.log(30), math.log(2)], 0.1) == (True, False, True, False)
    assert discovered([math.log(39), 0.0, 0.0, 0.0], 0.1) == (False,) * 4
    assert discovered([], 0.1) == ()
    rng = np.random.default_rng(9)
    false = []
    for _ in range(300):
        null = rng.standard_normal(15)
        real = rng.standard_normal(5) + 5
        scores = np.concatenate([null, real])
        log_es = scores * 3 - 4.5  # likelihood ratio of N(3, 1) against N(0, 1)
        found = np.array(discovered(log_es.tolist(), 0.1))
        false.append(found[:15].sum() / max(1, found.sum()))
    assert np.mean(false) <= 0.1


def test_other_metrics_are_told_as_findings() -> None:
    run = Run(design_of(plan={"units": 400}))
    rng = random.Random(8)
    for _ in range(800):
        arm = rng.choice(("control", "treatment"))
        took = int(rng.lognormvariate(0, 0.3) * (1e9 if arm == "treatment" else 2e9))
        run.told(run.unit(arm, phases=Phases(dispatched=1, last_token=took, done=took)), rng.random() < 0.5)
    verdict = judge(run.design, run.statistics, 1.0)
    findings = {one.metric for one in verdict.comparisons if one.finding}
    assert {"latency", "latency_p95"} <= findings
    assert "success" not in findings
    assert any("with at most 5 % of findings false: latency of treatment (-1" in said for said in verdict.reasons)
    for one in verdict.comparisons:
        if one.metric == "latency_p95":
            assert one.log_e is not None
            assert one.upper is not None
            assert (one.log_e >= math.log(20)) == (one.upper < 0)  # the e-value and the interval say the same
