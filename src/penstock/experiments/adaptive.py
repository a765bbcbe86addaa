"""Inference after adaptive allocation: means of arms whose shares followed the data, with intervals that stay valid.

A plain mean is biased where the shares follow the outcomes: an arm that begins badly is asked less often and keeps its bad luck. Here each
unit counts by the inverse of the chance that it had (augmented by what was known before its epoch: AIPW), and each epoch by a weight that
keeps the variance even: the square root of the share ("constant allocation", Hadad, Hirshberg, Zhan, Wager and Athey 2021, "Confidence
intervals for policy evaluation in adaptive experiments", PNAS 118, equations 5, 9 and 12; with contexts as Zhan, Hadad, Hirshberg and
Athey 2021, "Off-policy evaluation via adaptive weighting with data from contextual bandits", KDD, section 3). The studentised sum is
a martingale, so that the normal limit and the asymptotic confidence sequences of `sequences` both hold for it.

A unit's value is a numerator over a denominator, as everywhere: the mean is the root of the sum of (numerator - mean * denominator).
Everything is worked out from sums by epoch, arm and context.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from penstock.experiments.statistics import Moments

_KNOWN = 10  # units of an arm before what it showed is used as a guess


class Cell(NamedTuple):
    """One context within one epoch: the arms' shares of it, how many units each got, and what they showed."""

    shares: Mapping[str, float]
    units: Mapping[str, int]
    moments: Mapping[str, Moments]


Batch = Mapping[str, Cell]  # an epoch's cells, by context


class _Part(NamedTuple):
    """One arm in one cell: weight, share, units of all arms, the arm's own, its moments, and the guesses."""

    weight: float
    share: float
    all_units: int
    units: int
    moments: Moments
    top: float
    bottom: float


class Weighted(NamedTuple):
    """The means of all arms, in units of numerator over denominator, and the covariances of these estimates.

    `counts` says how many units of equal weight each would be worth (Kish 1965). An arm that nothing is known of is in none of them.
    """

    values: dict[str, float]
    covariances: dict[tuple[str, str], float]
    counts: dict[str, float]

    def difference(self, arm: str, other: str) -> tuple[float, float] | None:
        """`arm` minus `other`, and the variance of that; None if one of them is not known."""
        if arm not in self.values or other not in self.values:
            return None
        crossed = self.covariances[min(arm, other), max(arm, other)]
        variance = self.covariances[arm, arm] + self.covariances[other, other] - 2 * crossed
        return self.values[arm] - self.values[other], variance


def weighted_means(batches: Sequence[Batch], arms: Sequence[str], *, proportion: bool = False) -> Weighted:
    """The adaptively weighted estimates of the means of `arms`.

    Args:
        batches: the epochs, oldest first: what is guessed of one comes from those before it.
        arms: the arms.
        proportion: whether each numerator is a count of some of the denominator's; then no variance is below that of a share of so many
            units, two more successes and two more failures (Agresti and Coull 1998).
    """
    parts = {arm: _parts(batches, arm) for arm in arms}
    values: dict[str, float] = {}
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for arm, mine in parts.items():
        top = sum(_augmented(one, one.moments.top, one.top) for one in mine)
        bottom = sum(_augmented(one, one.moments.bottom, one.bottom) for one in mine)
        count = _count(mine)
        if bottom > 0 and count > 1:
            values[arm], sums[arm], counts[arm] = top / bottom, bottom, count
    covariances: dict[tuple[str, str], float] = {}
    for arm, value in values.items():
        for other, other_value in values.items():
            if arm < other:
                pairs = zip(parts[arm], parts[other], strict=True)
                crossed = sum(_cross(a, b, value, other_value) for a, b in pairs)
                covariances[arm, other] = crossed / (sums[arm] * sums[other])
        own = sum(_square(one, value) for one in parts[arm]) / sums[arm] ** 2
        count = counts[arm]
        if proportion:
            share = (min(1.0, max(0.0, value)) * count + 2) / (count + 4)
            own = max(own, share * (1 - share) / count)
        covariances[arm, arm] = own * count / (count - 1)
    return Weighted(values, covariances, counts)


def _count(parts: Sequence[_Part]) -> float:
    weights = sum(one.weight * one.moments.units / one.share for one in parts)
    squares = sum(one.weight**2 * one.moments.units / one.share**2 for one in parts)
    return weights * weights / squares if squares else 0.0


def one_look(found: Weighted, arm: str, other: str, alpha: float, *, proportion: bool) -> tuple[float, float] | None:
    """The interval of `arm` minus `other` for one look at a time that was fixed in advance; None if one of them is not known.

    Of shares with one success and one failure more in each (Agresti and Caffo 2000, "Simple and effective confidence intervals for
    proportions and differences of proportions", The American Statistician 54).
    """
    difference = found.difference(arm, other)
    if difference is None:
        return None
    middle, variance = difference
    if proportion:
        ends = []
        for name in (arm, other):
            count = found.counts[name]
            share = (min(1.0, max(0.0, found.values[name])) * count + 1) / (count + 2)
            ends.append(share)
            variance += max(0.0, share * (1 - share) / (count + 2) - found.covariances[name, name])
        middle = ends[0] - ends[1]
    reach = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(variance)
    return middle - reach, middle + reach


def _parts(batches: Sequence[Batch], arm: str) -> list[_Part]:
    """The arm's parts of all cells of all batches, in order; cells that it has no share of count for nothing."""
    found: list[_Part] = []
    before: dict[str, tuple[int, int, int]] = {}  # by context: units, numerators, denominators of the arm
    contexts: dict[str, int] = {}  # units of all arms
    for batch in batches:
        weight = _weight(batch, arm, contexts)
        for name in sorted(batch):
            cell = batch[name]
            share = cell.shares.get(arm, 0.0)
            units = cell.units.get(arm, 0)
            moments = cell.moments.get(arm, Moments())
            top, bottom = _guess(before, name)
            found.append(
                _Part(weight, share, sum(cell.units.values()), units, moments, top, bottom)
                if share > 0
                else _Part(0.0, 1.0, 0, 0, Moments(), 0.0, 0.0)
            )
        for name in sorted(batch):
            moments = batch[name].moments.get(arm, Moments())
            had = before.get(name, (0, 0, 0))
            units = batch[name].units.get(arm, 0)
            before[name] = (had[0] + units, had[1] + moments.top, had[2] + moments.bottom)
            contexts[name] = contexts.get(name, 0) + sum(batch[name].units.values())
    return found


def _weight(batch: Batch, arm: str, contexts: Mapping[str, int]) -> float:
    """One over the square root of the expected inverse share, over the contexts as they were before."""
    total = sum(contexts.get(name, 0) for name in batch)
    inverse = 0.0
    for name, cell in batch.items():
        share = cell.shares.get(arm, 0.0)
        if share <= 0:
            return 0.0
        inverse += (contexts.get(name, 0) / total if total else 1 / len(batch)) / share
    return 1 / math.sqrt(inverse)


def _guess(before: Mapping[str, tuple[int, int, int]], context: str) -> tuple[float, float]:
    """Numerator and denominator that a unit of the arm is expected to show, from earlier epochs; (0, 0): nothing is known."""
    units, top, bottom = before.get(context, (0, 0, 0))
    if units < _KNOWN:
        units, top, bottom = (sum(one[index] for one in before.values()) for index in range(3))
    return (top / units, bottom / units) if units >= _KNOWN else (0.0, 0.0)


def _augmented(part: _Part, total: int, guess: float) -> float:
    return part.weight * (part.all_units * guess + (total - part.units * guess) / part.share)


def _residual(part: _Part, value: float) -> tuple[float, float, float]:
    """The guess of (numerator - value * denominator), and the sum and the sum of squares of what differs from it."""
    m = part.moments
    guess = part.top - value * part.bottom
    total = m.top - value * m.bottom
    squares = m.top_top - 2 * value * m.top_bottom + value * value * m.bottom_bottom
    return guess, total - part.units * guess, squares - 2 * guess * total + part.units * guess * guess


def _square(part: _Part, value: float) -> float:
    guess, off, squares = _residual(part, value)
    found = part.all_units * guess * guess + 2 * guess * off / part.share + squares / part.share**2
    return part.weight**2 * found


def _cross(part: _Part, other: _Part, value: float, other_value: float) -> float:
    guess, off, _ = _residual(part, value)
    other_guess, other_off, _ = _residual(other, other_value)
    found = part.all_units * guess * other_guess + other_guess * off / part.share + guess * other_off / other.share
    return part.weight * other.weight * found
