"""Whole arrays: the same sums as one value at a time, to the last bit."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.exchange import Exchange, Finding, Phases, Usage
from penstock.experiments.columns import (
    Tally,
    buckets_of,
    dot,
    histogram_of,
    layer_of_arrays,
    moments_by_step,
    moments_of_arrays,
    moved_in_all,
    total,
)
from penstock.experiments.counted import Layer, Statistics, UnitRecord
from penstock.experiments.design import parse_design
from penstock.experiments.fold import Folding
from penstock.experiments.statistics import Moments, bucket_of, merged_histogram, moments_of
from tests.experiments.test_design import spec

WHOLE = st.integers(-(1 << 62), 1 << 62)
SMALL = st.integers(-1000, 1000)


@given(st.lists(st.tuples(st.one_of(WHOLE, SMALL), st.one_of(st.integers(0, 1 << 62), st.integers(0, 9))), max_size=30))
def test_moments_are_those_of_units_one_by_one(units: list[tuple[int, int]]) -> None:
    tops = np.array([one[0] for one in units], np.int64)
    bottoms = np.array([one[1] for one in units], np.int64)
    assert moments_of_arrays(tops, bottoms) == moments_of(units)
    assert total(tops) == sum(tops.tolist())
    assert dot(tops, bottoms) == sum(a * b for a, b in units)


@given(st.lists(st.tuples(st.one_of(WHOLE, SMALL), SMALL), max_size=20), st.integers(1, 4))
def test_steps_are_those_of_units_one_by_one(units: list[tuple[int, int]], step: int) -> None:
    table = np.array(units, np.int64).reshape(-1, 2)
    found = moments_by_step(table[:, 0], table[:, 1], step)
    assert found == [moments_of(units[:end]) for end in range(step, len(units) + 1, step)]


@given(st.lists(st.tuples(WHOLE, st.integers(1, 9), WHOLE), max_size=20))
def test_layers_are_those_of_units_one_by_one(units: list[tuple[int, int, int]]) -> None:
    expected = Layer()
    for top, bottom, past in units:
        expected = expected.moved((0, 0), (top, bottom), past)
    table = np.array(units, np.int64).reshape(-1, 3)
    assert layer_of_arrays(table[:, 0], table[:, 1], table[:, 2]) == expected


@given(st.lists(st.tuples(WHOLE, SMALL, WHOLE, SMALL), max_size=20))
def test_changes_add_up(changes: list[tuple[int, int, int, int]]) -> None:
    expected = Moments()
    for one in changes:
        expected = expected.moved(one[:2], one[2:])
    assert moved_in_all([value for one in changes for value in one]) == expected
    huge = [*(value for one in changes for value in one), 0, 0, 1 << 70, 1]
    assert moved_in_all(huge) == expected.moved((0, 0), (1 << 70, 1))


@given(st.lists(st.integers(-5, 1 << 62), min_size=1, max_size=40))
def test_buckets_are_those_of_values_one_by_one(values: list[int]) -> None:
    array = np.array(values, np.int64)
    assert buckets_of(array).tolist() == [bucket_of(value) for value in values]
    assert histogram_of(array) == merged_histogram({bucket_of(value): 1} for value in values)


def test_buckets_at_their_borders() -> None:
    values = [v for power in range(5, 63) for v in ((1 << power) - 1, 1 << power, (1 << power) + 1)]
    assert buckets_of(np.array(values, np.int64)).tolist() == [bucket_of(value) for value in values]


def test_more_values_than_a_piece_holds() -> None:
    values = np.full((1 << 20) + 3, (1 << 61) + 12345, np.int64)
    assert dot(values, values) == len(values) * ((1 << 61) + 12345) ** 2
    assert total(values) == len(values) * ((1 << 61) + 12345)


@given(st.lists(st.tuples(st.integers(0, 6), SMALL, st.integers(0, 5)), max_size=40), st.integers(1, 5))
def test_a_tally_is_the_same_in_batches_of_any_size(rows: list[tuple[int, int, int]], size: int) -> None:
    tally = Tally(2)
    sums: dict[int, tuple[int, int]] = {}
    for begin in range(0, len(rows), size):
        part = np.array(rows[begin : begin + size], np.int64).reshape(-1, 3)
        tally.add(part[:, 0], part[:, 0] % 2, part[:, 1], part[:, 2])
    for unit, top, bottom in rows:
        before = sums.get(unit, (0, 0))
        sums[unit] = (before[0] + top, before[1] + bottom)
    assert tally.moments() == [moments_of(value for unit, value in sums.items() if unit % 2 == arm) for arm in (0, 1)]


@pytest.mark.parametrize(
    "declared", [{}, {"winsorise": {"latency": [0, 0.2]}}, {"stratify": {"by": "stream", "values": ["true"]}}]
)
def test_folding_in_batches_counts_the_same(declared: dict[str, object]) -> None:
    design = parse_design(spec(guardrails=[{"metric": "error_rate"}, {"metric": "latency_p95"}], **declared))
    found = []
    for in_batches in (False, True):
        rng = random.Random(3)
        statistics = Statistics(shares={1: design.shares()})
        folding = Folding(design, statistics, in_batches=in_batches)
        units: dict[int, UnitRecord] = {}
        for sequence in range(400):
            number = rng.randrange(120)
            arm = "treatment" if number % 3 else "control"
            unit = units.setdefault(number, UnitRecord(arm=arm, first_at=0.0, values={}, bad={}))
            took = int(rng.lognormvariate(0, 1) * 1e8)
            folding.exposed(
                unit,
                Exchange(
                    id=f"r{sequence}",
                    at=0.0,
                    experiment="e",
                    arm=arm,
                    epoch=1,
                    outcome=rng.choice(("ok", "ok", "ok", "error", "refused", "cancelled")),
                    stream=rng.random() < 0.5,
                    cache=rng.choice(("miss", "hit")),
                    findings=(Finding("r", "flag", rng.choice(("input", "output"))),) if rng.random() < 0.2 else (),
                    phases=Phases(1, 2, rng.choice((0, 3)), took // 2, took, took),
                    usage=Usage(3, rng.randrange(5)),
                    cost_nanousd=rng.randrange(10**6),
                ),
                sequence,
            )
            if rng.random() < 0.3:
                folding.told(unit, 1, "success", rng.randrange(2), sequence)
            if rng.random() < 0.02:
                folding.settle()
        folding.settle()
        found.append((statistics, sorted(folding.touched), sorted(folding.layered)))
    assert found[0] == found[1]
