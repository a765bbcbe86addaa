"""Inference after adaptive allocation, against sums over single units, and by simulation."""

import math
import random

import pytest

from penstock.experiments.adaptive import Batch, Cell, one_look, weighted_means
from penstock.experiments.statistics import moments_of

ARMS = ("a", "b")
Unit = tuple[int, str, str, int, int]  # epoch, context, arm, numerator, denominator


def drawn(
    seed: int, epochs: int = 4, contexts: tuple[str, ...] = ("x", "y")
) -> tuple[list[Unit], list[dict[str, float]]]:
    """Units of epochs with different shares, some of them with no outcome yet."""
    draw = random.Random(seed)
    shares = [{"a": one, "b": 1 - one} for one in (0.5, 0.7, 0.9, 0.35)[:epochs]]
    units = []
    for epoch in range(epochs):
        for _ in range(60):
            context = draw.choice(contexts)
            arm = "a" if draw.random() < shares[epoch]["a"] else "b"
            count = draw.choice((0, 1, 1, 3))
            top = sum(draw.random() < (0.6 if arm == "a" else 0.4) for _ in range(count))
            units.append((epoch, context, arm, top, count))
    return units, shares


def batches_of(units: list[Unit], shares: list[dict[str, float]]) -> list[Batch]:
    found: list[Batch] = []
    for epoch, share in enumerate(shares):
        cells = {}
        for context in sorted({unit[1] for unit in units}):
            mine = [unit for unit in units if unit[0] == epoch and unit[1] == context]
            cells[context] = Cell(
                shares=share,
                units={arm: sum(unit[2] == arm for unit in mine) for arm in ARMS},
                moments={arm: moments_of((u[3], u[4]) for u in mine if u[2] == arm and u[4]) for arm in ARMS},
            )
        found.append(cells)
    return found


def unit_by_unit(units: list[Unit], shares: list[dict[str, float]], arm: str) -> tuple[float, float]:
    """The same estimate from its definition: a sum over units of weight * (guess + indicator / share * (value - guess))."""
    scores = []
    for epoch, context, got, top, bottom in units:
        before = [u for u in units if u[0] < epoch and u[2] == arm]
        here = [u for u in before if u[1] == context]
        known = here if len(here) >= 10 else before if len(before) >= 10 else []
        sums = sum(u[3] for u in known), sum(u[4] for u in known)
        guess = [one / len(known) if known else 0.0 for one in sums]
        weight = math.sqrt(shares[epoch][arm])
        mine = (got == arm) / shares[epoch][arm]
        scores.append(
            (
                weight * (guess[0] + mine * (top - guess[0])),
                weight * (guess[1] + mine * (bottom - guess[1])),
            )
        )
    value = sum(top for top, _ in scores) / sum(bottom for _, bottom in scores)
    spread = sum((top - value * bottom) ** 2 for top, bottom in scores) / sum(bottom for _, bottom in scores) ** 2
    return value, spread


@pytest.mark.parametrize("seed", range(5))
def test_sums_by_epoch_and_context_say_what_single_units_say(seed: int) -> None:
    units, shares = drawn(seed)
    found = weighted_means(batches_of(units, shares), ARMS)
    for arm in ARMS:
        value, spread = unit_by_unit(units, shares, arm)
        count = found.counts[arm]
        assert found.values[arm] == pytest.approx(value, rel=1e-12)
        assert found.covariances[arm, arm] == pytest.approx(spread * count / (count - 1), rel=1e-9)


def test_with_shares_that_never_change_it_is_the_plain_mean() -> None:
    units, _ = drawn(7, epochs=1, contexts=("x",))
    shares = [{"a": 0.5, "b": 0.5}]
    found = weighted_means(batches_of(units, shares), ARMS)
    for arm in ARMS:
        mine = [unit for unit in units if unit[2] == arm]
        assert found.values[arm] == pytest.approx(sum(u[3] for u in mine) / sum(u[4] for u in mine))


def test_an_arm_that_nothing_is_known_of_is_left_out() -> None:
    cell = Cell(
        shares={"a": 0.5, "b": 0.5}, units={"a": 3, "b": 0}, moments={"a": moments_of([(1, 1), (0, 1), (1, 1)])}
    )
    found = weighted_means([{"": cell}], ARMS)
    assert set(found.values) == {"a"}
    assert found.difference("a", "b") is None
    assert one_look(found, "a", "b", 0.05, proportion=True) is None
