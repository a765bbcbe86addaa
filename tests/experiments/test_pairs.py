"""Two answers to one request: what is measured, what is forecast, what may be spent."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.exchange import Exchange, Observation, Pair, Phases, Usage
from penstock.experiments.counted import Statistics, UnitRecord
from penstock.experiments.design import parse_design
from penstock.experiments.fold import Folding
from penstock.experiments.metrics import METRICS
from penstock.experiments.pair_verdict import BURST_S, dose_of, judge_pairs
from penstock.experiments.pairs import forecast, judged_of, measures_of, paired_difference, sides, treatment_of, vote_on
from penstock.experiments.similarity import MILLION, similarity
from penstock.experiments.statistics import moments_of


def answered(**changes: Any) -> Exchange:
    base: dict[str, Any] = {
        "id": "req_1",
        "at": 1.0,
        "arm": "new",
        "phases": Phases(0, 0, 1, 0, 700, 0),
        "usage": Usage(5, 9),
    }
    return Exchange(**base | changes)


def test_a_copys_own_side_is_the_treatment_and_an_interleaved_ones_the_control() -> None:
    copy = answered(pair=Pair(arm="control", of="req_0", latency_ns=500))
    treatment, control = sides(copy)
    assert (treatment.arm, treatment.latency_ns, control.arm, control.latency_ns) == ("new", 700, "control", 500)
    both = answered(arm="control", pair=Pair(arm="new", latency_ns=500))
    assert (sides(both)[0].arm, treatment_of(both), treatment_of(copy)) == ("new", "new", "new")
    assert not any(name.startswith("latency") for name, *_ in measures_of(both))  # it waited for both
    assert ("latency~", 200, 1) in list(measures_of(copy))


def test_what_failed_took_its_time() -> None:
    failed = answered(outcome="error", pair=Pair(arm="control", of="req_0", latency_ns=500))
    found = {name: (top, bottom) for name, top, bottom in measures_of(failed)}
    assert (found["error_rate"], found["error_rate@"], found["error_rate~"]) == ((1, 1), (0, 1), (1, 1))
    assert (found["completion"], found["completion@"]) == ((0, 1), (1, 1))
    assert (found["latency"], found["latency@"]) == ((700, 1), (500, 1))
    assert "completion_tokens" not in found
    unknown = answered(outcome="crashed", phases=Phases(), pair=Pair(arm="control", of="req_0", latency_ns=500))
    assert "latency" not in {name for name, *_ in measures_of(unknown)}
    refused = answered(outcome="refused", pair=Pair(arm="control", of="req_0"))
    assert {name for name, *_ in measures_of(refused)} == {
        f"{name}{mark}" for name in ("cost", "refusal") for mark in ("", "@", "~")
    }


@pytest.mark.parametrize(("failing", "state"), [(True, "worse"), (False, "better")])
def test_who_fails_more_often_is_not_better_by_what_finished_answers_tell(failing: bool, state: str) -> None:
    """The treatment is quicker in every pair; where it fails at once in every third, that is no merit."""
    spec = {
        "strategy": "shadow",
        "route": "r",
        "arms": [{"name": "control", "pool": "a"}, {"name": "new", "pool": "b"}],
        "primary": {"metric": "latency", "minimum_effect": 0.01},
        "plan": {"units": 200},
    }
    design = parse_design(spec)
    statistics = Statistics(shares={1: design.shares()})
    folding = Folding(design, statistics)
    for number in range(300):
        fails = failing and number % 3 == 0
        took = (1 if fails else 300 + number % 20) * 1_000_000
        one = answered(
            phases=Phases(0, 0, 1, 0, 0 if fails else took, took),
            outcome="error" if fails else "ok",
            epoch=1,
            pair=Pair(arm="control", of="req_0", latency_ns=(400 + number % 30) * 1_000_000),
        )
        folding.paired(UnitRecord(arm="new", first_at=0.0, values={}, bad={}), one, number)
    verdict = judge_pairs(design, statistics, 1.0)
    assert verdict.state == state
    assert ("come to their end" in verdict.reasons[0]) is failing


@pytest.mark.parametrize(
    ("of", "judged", "said"),
    [
        ("req_0", "first", "won"),
        ("req_0", "other", "lost"),
        ("", "other", "won"),
        ("req_0", "tie", "tie"),
        ("", "", ""),
    ],
)
def test_a_judgement_is_about_the_treatment(of: str, judged: Any, said: str) -> None:
    assert judged_of(answered(pair=Pair(arm="x", of=of, judged=judged))) == said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("chosen", 0.0, "won"), ("chosen", 1.0, "lost"), ("chosen", 2.0, ""), ("tie", None, "tie"), ("chosen", None, "")],
)
def test_a_preference_is_of_whose_choice_it_was(name: str, value: float | None, said: str) -> None:
    shown = answered(arm="control", pair=Pair(arm="new", shown=("new", "control")))
    word = Observation(id="p", at=1, received=1, kind="preference", tenant="a", name=name, value=value)
    assert vote_on(shown, word) == said
    assert vote_on(answered(), word) == ""


def test_arms_that_never_differed_may_still_differ() -> None:
    statistics = Statistics(moments={(1, "new", "error_rate~"): moments_of([(0, 1)] * 50)}, shares={1: {"new": 1.0}})
    found = paired_difference(None, statistics, METRICS["error_rate"], "new")
    assert found is not None
    assert (found.estimate, found.units) == (0.0, 50)
    assert found.variance == pytest.approx(2 / 52 / 52)
    assert paired_difference(None, statistics, METRICS["latency"], "new") is None


def test_a_forecast_is_wider_than_what_the_pairs_know() -> None:
    values = [1000 + 13 * (n % 40) for n in range(200)]
    rows = {"latency": [v + 50 + n % 3 for n, v in enumerate(values)], "latency@": values}
    rows["latency~"] = [a - b for a, b in zip(rows["latency"], rows["latency@"], strict=True)]
    statistics = Statistics(
        moments={(1, "new", name): moments_of((v, 1) for v in row) for name, row in rows.items()},
        shares={1: {"new": 1.0}},
    )
    wide = forecast(statistics, METRICS["latency"], "new", units=100, critical=2.8)
    narrow = forecast(statistics, METRICS["latency"], "new", units=100_000, critical=2.8)
    assert wide is not None
    assert narrow is not None
    assert wide.lower < narrow.lower < narrow.estimate < narrow.upper < wide.upper
    assert narrow.worse > 0.99 > 0.5 > wide.worse
    assert narrow.better < 1e-6


@given(st.text(max_size=200), st.text(max_size=200))
def test_similarity_is_a_share_and_has_no_sides(one: str, other: str) -> None:
    assert 0 <= similarity(one, other) == similarity(other, one) <= MILLION
    assert similarity(one, one.upper() if one.isascii() else one) == MILLION


def test_similarity_by_hand() -> None:
    # red fox, red dog: of 3 parts each (two words, one pair) they share one.
    assert similarity("Red fox", "red  dog") == round(2 * MILLION * 1 / 6)


def test_the_pace_of_a_budget() -> None:
    design = parse_design(
        {
            "strategy": "shadow",
            "route": "r",
            "arms": [{"name": "control", "pool": "a"}, {"name": "new", "pool": "b"}],
            "primary": {"metric": "cost", "minimum_effect": 0.001},
            "shadow": {"share": 0.3, "usd_per_hour": 3.6},
        }
    )
    statistics = Statistics(
        moments={(1, "new", "cost"): moments_of([(10**9, 1)])}, shares={1: {"new": 1.0}}
    )  # a dollar
    assert dose_of(design, statistics, ran_s=0) == 0.0
    assert dose_of(design, statistics, ran_s=939) == 0.0
    assert (
        dose_of(design, statistics, ran_s=941) == 0.3
    )  # a tenth of a cent a second, and a minute's worth to begin with


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.floats(0.0, 0.01)), min_size=50, max_size=400))
def test_a_paced_dose_changes_at_most_twice_in_half_a_burst_and_keeps_the_pace(
    rounds: list[tuple[float, float]],
) -> None:
    """Rounds of the evaluator: seconds since the last one, and what a copy a second would cost, if any is made."""
    design = parse_design(
        {
            "strategy": "shadow",
            "route": "bot",
            "arms": [{"name": "control", "pool": "a"}, {"name": "new", "pool": "b"}],
            "primary": {"metric": "latency", "minimum_effect": 0.1},
            "shadow": {"share": 0.3, "usd_per_hour": 3.6},  # a tenth of a cent a second
        }
    )
    spent, ran_s, dose, turned_on = 0.0, 0.0, 0.3, []
    for took, usd in rounds:
        ran_s += took
        spent += usd * took if dose else 0.0
        moments = {(1, "new", "cost"): moments_of([(round(spent * 1e9), 1)])}
        now = dose_of(design, Statistics(moments=moments, shares={1: {"new": 1.0}}), ran_s=ran_s, dose=dose)
        if now and not dose:
            turned_on.append(ran_s)
        dose = now
        assert spent <= 0.001 * (ran_s + BURST_S) + 5.0 * 0.01  # what one round may overshoot
    assert all(later - earlier >= BURST_S / 2 - 1e-6 for earlier, later in itertools.pairwise(turned_on))
