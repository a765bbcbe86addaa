"""What exchanges and observations measure, and what becomes of numbers that are none."""

import math
from typing import Any

import pytest

from penstock.core.exchange import Exchange, Finding, Observation, Phases, Quality, Usage
from penstock.experiments.metrics import is_number_refused, measures, timings, told
from penstock.experiments.statistics import FAILED, bucket_of

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
def test_failures_are_slower_than_any_answer_and_no_fast_ones(outcome: str) -> None:
    found = {name: top for name, top, _ in measures(exchange(outcome=outcome))}
    assert found["error_rate"] == 1
    assert "latency" not in found
    assert dict(timings(exchange(outcome=outcome))) == {"latency_p95": FAILED, "time_to_first_token_p95": FAILED}


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
    assert found["error_rate"] == 0
    assert "latency" not in found
    assert dict(timings(exchange(outcome="cancelled")))["latency_p95"] == bucket_of(510 * MS)


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
