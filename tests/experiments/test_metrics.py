"""What exchanges and observations measure, and what becomes of numbers that are none."""

import math
from typing import Any

import pytest

from penstock.core.errors import BadRequest
from penstock.core.exchange import Exchange, Finding, Observation, Phases, Quality, Usage
from penstock.experiments.compare import difference
from penstock.experiments.counted import Statistics, UnitRecord
from penstock.experiments.design import parse_design
from penstock.experiments.fold import Folding
from penstock.experiments.guardrails import is_bad
from penstock.experiments.metrics import METRICS, is_number_refused, measures, timings, told
from penstock.experiments.ready import check_decisive
from penstock.experiments.statistics import FAILED, bucket_of
from penstock.experiments.verdict import judge

MS = 1_000_000


def exchange(**changes: Any) -> Exchange:
    base: dict[str, Any] = {
        "id": "r",
        "at": 1.0,
        "stream": True,
        "phases": Phases(dispatched=10 * MS, first_token=60 * MS, last_token=510 * MS, done=520 * MS),
        "usage": Usage(12, 50),
        "cost_nanousd": 700,
    }
    return Exchange(**base | changes)


def test_an_answer() -> None:
    assert {name: (top, bottom) for name, top, bottom in measures(exchange())} == {
        "cost": (700, 1),
        "reports": (0, 1),
        "refusal": (0, 1),
        "findings": (0, 1),
        "error_rate": (0, 1),
        "completion": (1, 1),
        "replica_seconds": (500 * MS, 1),
        "completion_tokens": (50, 1),
        "latency": (510 * MS, 1),
        "time_to_first_token": (60 * MS, 1),
        "tokens_per_second": (50, 500 * MS),
    }
    assert dict(timings(exchange())) == {
        "latency_p95": bucket_of(510 * MS),
        "time_to_first_token_p95": bucket_of(60 * MS),
    }


@pytest.mark.parametrize("outcome", ["error", "truncated", "crashed"])
def test_failures_take_their_time_and_are_slower_than_any_answer(outcome: str) -> None:
    """Their times count as the least that they can have been: left out, an arm that fails on its slow answers would look quick."""
    found = {name: (top, bottom) for name, top, bottom in measures(exchange(outcome=outcome))}
    assert found["error_rate"] == (1, 1)
    assert found["completion"] == (0, 1)
    assert found["latency"] == (520 * MS, 1)
    assert found["time_to_first_token"] == (60 * MS, 1)
    assert found["tokens_per_second"] == (50, 510 * MS)
    assert found["replica_seconds"] == (510 * MS, 1)
    assert "completion_tokens" not in found  # half an answer is no short one
    assert dict(timings(exchange(outcome=outcome))) == {"latency_p95": FAILED, "time_to_first_token_p95": FAILED}


def test_where_no_token_came_its_time_is_that_until_the_end() -> None:
    nothing = Phases(dispatched=10 * MS, done=30_000 * MS)
    found = {
        name: (top, bottom) for name, top, bottom in measures(exchange(outcome="error", phases=nothing, usage=Usage()))
    }
    assert found["latency"] == found["time_to_first_token"] == (30_000 * MS, 1)
    assert found["tokens_per_second"] == (0, 29_990 * MS)
    left = exchange(outcome="cancelled", phases=nothing)
    assert dict(timings(left))["time_to_first_token_p95"] == bucket_of(30_000 * MS)
    assert is_bad("time_to_first_token", left, 20_000 * MS)


def test_of_a_worker_that_was_killed_no_time_is_known() -> None:
    found = {name: top for name, top, _ in measures(exchange(outcome="crashed", phases=Phases(), usage=Usage()))}
    assert {"latency", "time_to_first_token", "tokens_per_second"}.isdisjoint(found)
    assert found["completion"] == 0


@pytest.mark.parametrize(
    "metric", ["latency", "time_to_first_token", "completion_tokens", "surprisal", "refused_answers"]
)
def test_what_finished_answers_tell_decides_beside_completion_alone(metric: str) -> None:
    spec: dict[str, Any] = {
        "strategy": "ab",
        "route": "bot",
        "arms": [{"name": "control", "pool": "a"}, {"name": "treatment", "pool": "b"}],
        "primary": {"metric": metric, "minimum_effect": 0.1},
        "guardrails": [{"metric": "error_rate"}],
    }
    with pytest.raises(BadRequest, match="cannot decide alone"):
        check_decisive(parse_design(spec))
    check_decisive(parse_design(spec | {"guardrails": [{"metric": "completion"}]}))
    check_decisive(parse_design(spec | {"primary": {"metric": "latency_p95", "minimum_effect": 0.1}}))


def test_an_arm_that_times_out_on_its_slow_answers_is_not_quicker() -> None:
    """Both arms are given the same work; the treatment gives up after a second on what takes longer."""
    spec: dict[str, Any] = {
        "strategy": "ab",
        "route": "bot",
        "hypothesis": "it is quicker",
        "arms": [{"name": "control", "pool": "a"}, {"name": "treatment", "pool": "b"}],
        "primary": {"metric": "latency", "minimum_effect": 0.1},
        "guardrails": [{"metric": "completion"}],
        "plan": {"units": 400},
    }
    design = parse_design(spec)
    statistics = Statistics(shares={1: design.shares()})
    folding = Folding(design, statistics)
    for number in range(800):
        took = (400 + 4 * (number % 100) if number % 10 else 20_000) * MS
        arm = design.arms[number // 10 % 2].name
        quits = arm == "treatment" and took > 1000 * MS
        ended = 1000 * MS if quits else took
        phases = Phases(dispatched=10 * MS, last_token=0 if quits else ended, done=ended)
        one = exchange(stream=False, phases=phases, outcome="error" if quits else "ok", arm=arm, epoch=1)
        folding.exposed(UnitRecord(arm=arm, first_at=0.0, values={}, bad={}), one, number)
    latency = difference(design, statistics, METRICS["latency"], "treatment")
    assert latency is not None
    verdict = judge(design, statistics, 1.0)
    assert (verdict.state, verdict.tripped) == ("worse", "completion")


def test_refusals_are_no_errors_and_have_no_times() -> None:
    found = {name: top for name, top, _ in measures(exchange(outcome="refused"))}
    assert found["refusal"] == 1
    assert "error_rate" not in found
    assert timings(exchange(outcome="refused")) == []
    assert {n: t for n, t, _ in measures(exchange(finish="content_filter"))}["refusal"] == 1
    told = (Finding(rule="words", action="flag", where="input"), Finding(rule="words", action="flag", where="output"))
    assert [{n: t for n, t, _ in measures(exchange(findings=told[:k]))}["findings"] for k in (1, 2)] == [0, 1]


def test_the_cache_says_nothing_of_speed() -> None:
    found = {name for name, _, _ in measures(exchange(cache="hit"))}
    assert "latency" not in found
    assert "cost" in found
    assert timings(exchange(cache="hit")) == []


def test_who_leaves_early_is_no_error_but_had_waited() -> None:
    found = {name: top for name, top, _ in measures(exchange(outcome="cancelled"))}
    assert found["error_rate"] == found["completion"] == 0
    assert found["latency"] == 520 * MS
    assert dict(timings(exchange(outcome="cancelled")))["latency_p95"] == bucket_of(520 * MS)
    assert is_bad("completion", exchange(outcome="cancelled"), 0)
    assert not is_bad("completion", exchange(), 0)
    assert not is_bad("completion", exchange(outcome="refused"), 0)


def test_negative_numbers_become_nothing() -> None:
    odd = exchange(usage=Usage(-5, -5), cost_nanousd=-1, phases=Phases(last_token=-7, done=-9))
    assert all(top >= 0 and bottom >= 0 for _, top, bottom in measures(odd))


def said(**changes: Any) -> Observation:
    base: dict[str, Any] = {"id": "o", "at": 1.0, "received": 1.0, "kind": "feedback", "tenant": "t", "request": "r"}
    return Observation(**base | changes)


def test_what_observations_tell() -> None:
    assert told(said(success=True, rating=-1)) == [("success", 1), ("rating", -1_000_000)]
    assert told(said(success=False, rating=0.5)) == [("success", 0), ("rating", 500_000)]
    assert told(said(text="nice")) == []
    assert told(said(kind="report", name="harmful")) == [("reports", 1)]
    assert told(said(kind="event", name="conversion", value=20.0)) == [("conversion", 1)]
    assert told(said(kind="event", name="page_view")) == []
    assert told(said(kind="preference", name="1")) == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300, -1e7])
def test_numbers_that_are_none_are_left_out(number: float) -> None:
    assert told(said(rating=number, success=True)) == [("success", 1)]
    assert is_number_refused(said(rating=number))
    assert is_number_refused(said(value=number))
    assert not is_number_refused(said(rating=1.0))


def test_answers_that_the_engine_looked_at() -> None:
    found = {n: (t, b) for n, t, b in measures(exchange(quality=Quality(40, -20.0, 38, 4, True)))}
    assert found["surprisal"] == (20_000_000, 40)
    assert found["repetition"] == (4, 38)
    assert found["refused_answers"] == (1, 1)
    assert {"surprisal", "repetition"}.isdisjoint(n for n, _, _ in measures(exchange(quality=Quality())))
    odd = [n for n, _, _ in measures(exchange(quality=Quality(3, math.nan, -1, 0)))]
    assert {"surprisal", "repetition"}.isdisjoint(odd)
