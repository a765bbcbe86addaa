"""Sufficient statistics that merge exactly, and what is estimated from them.

All counts are integers (nanoseconds, tokens, billionths of a dollar), so merging is associative and commutative to the last bit: the
order of arrival, the size of batches and a restart in between cannot change a result.

Every mean, proportion and ratio is one thing here: a sum of numerators over a sum of denominators, clustered by the unit of assignment
(Deng, Knoblich and Lu 2018, "Applying the delta method in metric analytics", KDD, section 3). A unit with one request of denominator 1
gives the ordinary sample mean and variance.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

FAILED = 64 * 32  # the bucket of what never ended well: slower than everything
_STEPS = 32  # buckets in a doubling: 3 % apart


class Moments(msgspec.Struct, frozen=True, array_like=True):
    """Over the units of one arm: how many, and the sums of numerators, denominators, their squares and their product."""

    units: int = 0
    top: int = 0
    bottom: int = 0
    top_top: int = 0
    bottom_bottom: int = 0
    top_bottom: int = 0

    def merged(self, other: "Moments") -> "Moments":
        """Both together; they must be of different units."""
        return Moments(
            self.units + other.units,
            self.top + other.top,
            self.bottom + other.bottom,
            self.top_top + other.top_top,
            self.bottom_bottom + other.bottom_bottom,
            self.top_bottom + other.top_bottom,
        )

    def moved(self, before: tuple[int, int], after: tuple[int, int]) -> "Moments":
        """The moments after one unit's (numerator, denominator) went from `before` to `after`; (0, 0): it was not there."""
        top, bottom = before
        new_top, new_bottom = after
        return Moments(
            self.units + (after != (0, 0)) - (before != (0, 0)),
            self.top + new_top - top,
            self.bottom + new_bottom - bottom,
            self.top_top + new_top * new_top - top * top,
            self.bottom_bottom + new_bottom * new_bottom - bottom * bottom,
            self.top_bottom + new_top * new_bottom - top * bottom,
        )


def moments_of(units: Iterable[tuple[int, int]]) -> Moments:
    """The moments of units given whole, each as (numerator, denominator)."""
    total = Moments()
    for unit in units:
        total = total.moved((0, 0), unit)
    return total


class Estimate(NamedTuple):
    """A value, the variance of that value as an estimate, and how many units it rests on."""

    value: float
    variance: float
    units: int


def estimate(moments: Moments, scale: float = 1.0, *, proportion: bool = False) -> Estimate | None:
    """The ratio of the sums and its variance by the delta method; None below two units.

    A proportion's variance is at least that of one more success and one more failure (Agresti and Coull 1998), so that an arm without a
    failure yet is not taken for one that cannot fail.

    Args:
        moments: of one arm.
        scale: what one numerator over one denominator is worth in the metric's unit.
        proportion: whether each numerator is a count of some of the denominator's.
    """
    if moments.units < 2 or moments.bottom <= 0:
        return None
    # The sum of squares of (numerator - ratio * denominator), times the squared sum of denominators: whole numbers, so nothing cancels.
    residual = (
        moments.top_top * moments.bottom**2
        - 2 * moments.top * moments.bottom * moments.top_bottom
        + moments.top**2 * moments.bottom_bottom
    )
    value = moments.top / moments.bottom
    variance = (residual / moments.bottom**2) / (moments.units - 1) * moments.units / moments.bottom**2
    if proportion:
        hedged = (moments.top + 1) / (moments.bottom + 2)
        variance = max(variance, hedged * (1 - hedged) / (moments.bottom + 2))
    return Estimate(value * scale, variance * scale * scale, moments.units)


class Welch(NamedTuple):
    """Welch's comparison of two means: the difference, its standard error, t and the degrees of freedom."""

    difference: float
    error: float
    t: float
    freedom: float


def welch(control: Estimate, treatment: Estimate) -> Welch:
    """Welch's t (1947) of treatment against control, for a look that was fixed in advance."""
    variance = control.variance + treatment.variance
    difference = treatment.value - control.value
    error = math.sqrt(variance)
    below = control.variance**2 / (control.units - 1) + treatment.variance**2 / (treatment.units - 1)
    freedom = variance**2 / below if below > 0 else math.inf
    return Welch(difference, error, difference / error if error > 0 else 0.0, freedom)


def stratified(strata: Iterable[tuple[Estimate, Estimate]]) -> tuple[float, float, int]:
    """Difference, its variance and the number of units over strata, each of which compares its own control and treatment.

    A stratum counts by its units. Epochs of different weights are never pooled: that would let a ramp in a busy hour look like an effect
    (Simpson's paradox).

    Raises:
        ValueError: if there is no stratum.
    """
    pairs = list(strata)
    total = sum(control.units + treatment.units for control, treatment in pairs)
    if total == 0:
        raise ValueError("there is no stratum to compare")
    difference = variance = 0.0
    for control, treatment in pairs:
        share = (control.units + treatment.units) / total
        difference += share * (treatment.value - control.value)
        variance += share * share * (treatment.variance + control.variance)
    return difference, variance, total


Histogram = Mapping[int, int]
"""Counts by bucket: 32 to each doubling, so a value is known to 3 %. Histograms merge by adding."""


def bucket_of(value: int) -> int:
    """The bucket of a whole number (nanoseconds); what is below 32 counts as 32."""
    value = max(value, _STEPS)
    power = value.bit_length() - 1
    return min(power * _STEPS + ((value >> (power - 5)) & (_STEPS - 1)), FAILED - 1)


def bucket_floor(bucket: int) -> float:
    """The smallest value in `bucket`; infinite for failures."""
    if bucket >= FAILED:
        return math.inf
    power, step = divmod(bucket, _STEPS)
    return float(((_STEPS + step) << power) >> 5)


def merged_histogram(histograms: Iterable[Histogram]) -> dict[int, int]:
    """All of them together."""
    total: dict[int, int] = {}
    for one in histograms:
        for key, count in one.items():
            total[key] = total.get(key, 0) + count
    return total


def quantile(histogram: Histogram, p: float) -> float | None:
    """The value that `p` of all are at most: the middle of its bucket; None if there is none."""
    count = sum(histogram.values())
    return value_at(histogram, min(count, max(1, math.ceil(p * count)))) if count else None


def value_at(histogram: Histogram, rank: int) -> float:
    """The value of the given rank (1 is the smallest): the middle of its bucket; 0 below rank 1, infinite above the last."""
    return values_at(histogram, (rank,))[0]


def values_at(histogram: Histogram, ranks: Sequence[int]) -> list[float]:
    """The values of the given ranks, which must rise; as `value_at` for each."""
    found: list[float] = []
    seen = 0
    key: int | None = -1
    keys = iter(sorted(histogram))
    for rank in ranks:
        while rank > seen and key is not None:
            key = next(keys, None)
            seen += histogram[key] if key is not None else 0
        found.append(0.0 if rank < 1 else math.inf if key is None else _middle(key))
    return found


def _middle(bucket: int) -> float:
    low = bucket_floor(bucket)
    return low if math.isinf(low) else (low + bucket_floor(min(bucket + 1, FAILED - 1))) / 2
