"""Tests that are watched: how often they call a difference that is not there, and how often they find one that is.

Each run feeds units, 100 an arm at a time, into the shipped statistics (by their entries for whole arrays) and asks the shipped comparison
after each hundred. Numpy makes the draws; sums, estimates, variances, intervals and boundaries are those that control uses.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.checks import Check, Measured
from penstock.experiments.columns import histogram_of, layer_of_arrays, moments_by_step
from penstock.experiments.comparisons import comparisons_of
from penstock.experiments.counted import Cell, Layer, Statistics
from penstock.experiments.design import Design, parse_design
from penstock.experiments.fold import Folding
from penstock.experiments.group_sequential import even, power
from penstock.experiments.statistics import Moments, merged_histogram

ARM = 60_000  # units
STEP = 100
RUNS = 2_000
ALPHA = 0.05
Ints = NDArray[np.int64]


def design_of(metric: str, *, stratify: Any = None, covariate: Any = None, **plan: Any) -> Design:
    """Two even arms, tuned to their whole size."""
    return parse_design(
        {
            "strategy": "ab",
            "route": "r",
            "arms": [{"name": "control", "pool": "a"}, {"name": "treatment", "pool": "b"}],
            "primary": {"metric": metric, "minimum_effect": 0.005},
            "plan": {"alpha": ALPHA, "units": ARM} | plan,
            "stratify": stratify,
            "covariate": covariate,
        }
    )


def sums(tops: Ints, bottoms: Ints) -> list[Moments]:
    """The moments after each step, from the values of one arm's units in order."""
    return moments_by_step(tops, bottoms, STEP)


def called(design: Design, arms: tuple[list[Moments], list[Moments]]) -> bool:
    """Whether one of the looks of a run called a difference."""
    metric = design.primary.metric
    for control, treatment in zip(*arms, strict=True):
        statistics = Statistics(
            moments={(1, "control", metric): control, (1, "treatment", metric): treatment}, shares={1: design.shares()}
        )
        if next(comparisons_of(design, statistics)).state in {"better", "worse"}:
            return True
    return False


def wrong_calls(
    metric: str, draw: Callable[[np.random.Generator, int], tuple[Ints, Ints]]
) -> Callable[[int, float], Measured]:
    """The check of an A/A test of a metric of sums."""

    def measure(seed: int, part: float) -> Measured:
        rng = np.random.default_rng(seed)
        design = design_of(metric)
        runs = max(6, round(RUNS * part))
        units = ARM if part == 1 else 6_000
        wrong = sum(called(design, (sums(*draw(rng, units)), sums(*draw(rng, units)))) for _ in range(runs))
        return _share(wrong, runs, ALPHA)

    return measure


def _share(wrong: int, runs: int, most: float) -> Measured:
    allowed = most if runs >= RUNS else most + 3 * math.sqrt(most * (1 - most) / runs)
    return Measured(f"{wrong} of {runs} runs, {100 * wrong / runs:.2f} %", wrong / runs <= allowed)


def proportion(rng: np.random.Generator, units: int) -> tuple[Ints, Ints]:
    return (rng.random(units) < 0.1).astype(np.int64), np.ones(units, np.int64)


def ratio(rng: np.random.Generator, units: int) -> tuple[Ints, Ints]:
    """Tokens over milliseconds of users who come 1 to 20 times and differ in pace: what a user does resembles itself."""
    times = rng.geometric(0.3, units).clip(1, 20)
    bottoms = times * rng.integers(200, 800, units)
    tops = rng.poisson(bottoms * rng.lognormal(-3, 0.6, units))
    return tops.astype(np.int64), bottoms.astype(np.int64)


def lognormal(rng: np.random.Generator, units: int) -> tuple[Ints, Ints]:
    return (rng.lognormal(0, 2, units) * 1e3).astype(np.int64), np.ones(units, np.int64)


def pareto(rng: np.random.Generator, units: int) -> tuple[Ints, Ints]:
    return ((rng.pareto(2.1, units) + 1) * 1e3).astype(np.int64), np.ones(units, np.int64)


def quantile_calls(seed: int, part: float) -> Measured:
    """The 95th percentile of lognormal times, one a unit."""
    rng = np.random.default_rng(seed)
    design = design_of("latency_p95")
    runs = max(6, round(RUNS * part))
    units = ARM if part == 1 else 6_000
    wrong = 0
    for _ in range(runs):
        drawn = (rng.lognormal(0, 1, (2, units)) * 1e8).astype(np.int64)
        wrong += _quantile_called(design, drawn)
    return _share(wrong, runs, ALPHA)


def _quantile_called(design: Design, arms: Ints) -> bool:
    names = ("control", "treatment")
    statistics = Statistics(shares={1: design.shares()})
    for end in range(STEP, arms.shape[1] + 1, STEP):
        for name, values in zip(names, arms, strict=True):
            place = (1, name, "latency_p95")
            before = statistics.histograms.get(place, {})
            statistics.histograms[place] = merged_histogram((before, histogram_of(values[end - STEP : end])))
            statistics.moments[1, name, "cost"] = Moments(end, 0, end, 0, end, 0)
        if next(comparisons_of(design, statistics)).state in {"better", "worse"}:
            return True
    return False


def layered_calls(seed: int, part: float) -> Measured:
    """Three tenants who rate differently, one of them rare, and a past that tells what people are like."""
    rng = np.random.default_rng(seed)
    design = design_of("rating", stratify={"by": "tenant", "values": ["a", "b"]}, covariate={"metric": "rating"})
    runs = max(6, round(RUNS * part))
    units = ARM if part == 1 else 6_000
    wrong = sum(_layered_called(design, rng, units) for _ in range(runs))
    return _share(wrong, runs, ALPHA)


def _layered_called(design: Design, rng: np.random.Generator, units: int) -> bool:
    arms = {name: _people(rng, units) for name in ("control", "treatment")}
    layers: dict[Cell, Layer] = {}
    for start in range(0, units, STEP):
        for arm, (tenant, tops, past) in arms.items():
            rows = slice(start, start + STEP)
            for number, stratum in enumerate(design.strata):
                mine = tenant[rows] == number
                step = layer_of_arrays(tops[rows][mine], np.ones(mine.sum(), np.int64), past[rows][mine])
                cell = (1, stratum, arm, "rating")
                layers[cell] = layers.get(cell, Layer()).merged(step)
        statistics = Statistics(layers=layers, shares={1: design.shares()})
        if next(comparisons_of(design, statistics)).state in {"better", "worse"}:
            return True
    return False


def _people(rng: np.random.Generator, units: int) -> tuple[Ints, Ints, Ints]:
    tenant = rng.choice(3, units, p=(0.3, 0.65, 0.05))
    taste = rng.normal(tenant - 1.0, 1.0)
    now, before = (taste + rng.normal(0, 0.6, units) for _ in range(2))
    return tenant, (now * 1e6).astype(np.int64), (before * 1e6).astype(np.int64)


def always_valid_power(seed: int, part: float) -> Measured:
    """10 % against 10.5 %, a look after every hundred."""
    rng = np.random.default_rng(seed)
    design = design_of("success")
    runs = max(6, round(RUNS * part))
    ones = np.ones(ARM, np.int64)
    found = sum(
        called(design, tuple(sums((rng.random(ARM) < rate).astype(np.int64), ones) for rate in (0.1, 0.105)))  # type: ignore[arg-type]
        for _ in range(runs)
    )
    least = 0.54 if part == 1 else 0.54 - 3 * math.sqrt(0.25 / runs)
    return Measured(f"{found} of {runs} runs, {100 * found / runs:.1f} %", found / runs >= least)


def planned_power(seed: int, part: float) -> Measured:
    """The same with five planned looks, taken by the shipped folding when they come due."""
    rng = np.random.default_rng(seed)
    design = design_of("success", inference="group_sequential", looks=5)
    runs = max(6, round(RUNS * part))
    ones = np.ones(ARM, np.int64)
    found = 0
    for _ in range(runs):
        arms = [sums((rng.random(ARM) < rate).astype(np.int64), ones) for rate in (0.1, 0.105)]
        found += _planned_called(design, arms)
    a, b = 0.1, 0.105
    theory = power(even(5), ALPHA, (b - a) / math.sqrt((a * (1 - a) + b * (1 - b)) / ARM))
    slack = 0.03 if part == 1 else 0.03 + 3 * math.sqrt(0.16 / runs)
    return Measured(
        f"{100 * found / runs:.1f} % of {runs} runs, theory {100 * theory:.1f} %", abs(found / runs - theory) <= slack
    )


def planned_wrong(seed: int, part: float) -> Measured:
    """An A/A test with five planned looks."""
    rng = np.random.default_rng(seed)
    design = design_of("success", inference="group_sequential", looks=5)
    runs = max(6, round(RUNS * part))
    ones = np.ones(ARM, np.int64)
    wrong = sum(
        _planned_called(design, [sums((rng.random(ARM) < 0.1).astype(np.int64), ones) for _ in range(2)])
        for _ in range(runs)
    )
    return _share(wrong, runs, ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / runs))  # it spends all of alpha


def _planned_called(design: Design, arms: list[list[Moments]]) -> bool:
    statistics = Statistics(shares={1: design.shares()})
    folding = Folding(design, statistics)
    for control, treatment in zip(*arms, strict=True):
        statistics.moments[1, "control", "success"] = control
        statistics.moments[1, "treatment", "success"] = treatment
        folding.look_if_due(0)
    return next(comparisons_of(design, statistics)).state in {"better", "worse"}


CHECKS = [
    Check("A/A watched: proportion", "at most 5 % wrong", wrong_calls("success", proportion), 101, slow=True),
    Check("A/A watched: ratio", "at most 5 % wrong", wrong_calls("tokens_per_second", ratio), 102, slow=True),
    Check("A/A watched: quantile", "at most 5 % wrong", quantile_calls, 103, slow=True),
    Check("A/A watched: lognormal, sigma 2", "at most 5 % wrong", wrong_calls("rating", lognormal), 104, slow=True),
    Check("A/A watched: Pareto 2.1", "at most 5 % wrong", wrong_calls("rating", pareto), 105, slow=True),
    Check("A/A watched: strata and covariate", "at most 5 % wrong", layered_calls, 109, slow=True),
    Check("A/A at planned looks: proportion", "at most 5 % wrong, and noise", planned_wrong, 106, slow=True),
    Check("power watched: 10 % to 10.5 %", "at least 54 %", always_valid_power, 107, slow=True),
    Check("power at planned looks: 10 % to 10.5 %", "theory within 3 points", planned_power, 108, slow=True),
]
