"""Whole arrays into the same exact sums: what micro-batches, simulations and backfills use.

All sums are whole numbers of any size, as they are one value at a time. Products of 63-bit numbers do not fit into 64 bits, so they are
summed in pieces of 21 bits: each product of two pieces has at most 42, and 2^20 of them stay below 63.
"""

from itertools import accumulate
from typing import TYPE_CHECKING

from penstock.experiments.counted import Layer
from penstock.experiments.statistics import FAILED, Moments, bucket_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

_PIECE_BITS = 21
_CHUNK = 1 << 20
_EXACT = 1 << 53  # whole numbers below it are exact as floating-point numbers


def moments_of_arrays(tops: "Ints", bottoms: "Ints") -> Moments:
    """The moments of units given whole, one at each place of both arrays; a unit with 0 in both is not there.

    Equal to `statistics.moments_of`, whatever the size of the numbers.
    """
    return Moments(
        int(((tops != 0) | (bottoms != 0)).sum()),
        total(tops),
        total(bottoms),
        dot(tops, tops),
        dot(bottoms, bottoms),
        dot(tops, bottoms),
    )


def moments_by_step(tops: "Ints", bottoms: "Ints", step: int) -> list[Moments]:
    """The moments after each `step` of units: what somebody sees who looks again and again. The last units count if they fill a step."""
    whole = len(tops) // step * step
    tables = tops[:whole].reshape(-1, step), bottoms[:whole].reshape(-1, step)
    if max(_largest(tops), _largest(bottoms)) ** 2 * step < 1 << 63:
        one, other = tables
        columns = ((one != 0) | (other != 0), one, other, one * one, other * other, one * other)
        parts = (Moments(*values) for values in zip(*(column.sum(1).tolist() for column in columns), strict=True))
    else:
        parts = (moments_of_arrays(*rows) for rows in zip(*tables, strict=True))
    return list(accumulate(parts, Moments.merged))


def layer_of_arrays(tops: "Ints", bottoms: "Ints", past: "Ints") -> Layer:
    """The same with the sums of a covariate: one unit at each place of the three arrays, all of them there."""
    return Layer(moments_of_arrays(tops, bottoms), total(past), dot(past, past), dot(tops, past), dot(bottoms, past))


def moved_in_all(values: list[int]) -> Moments:
    """What moments change by, of a row of changes: four numbers each, numerator and denominator before and after.

    The sum of what `Moments.moved` adds, one change after the other.
    """
    import numpy as np

    try:
        table = np.array(values, np.int64).reshape(-1, 4)
    except OverflowError:  # sums of one unit beyond 63 bits: slowly, but exactly
        moments = Moments()
        for at in range(0, len(values), 4):
            moments = moments.moved((values[at], values[at + 1]), (values[at + 2], values[at + 3]))
        return moments
    one, other = (moments_of_arrays(table[:, at], table[:, at + 1]) for at in (0, 2))
    return Moments(*(new - old for new, old in zip(_fields(other), _fields(one), strict=True)))


def _fields(moments: Moments) -> tuple[int, ...]:
    return (
        moments.units,
        moments.top,
        moments.bottom,
        moments.top_top,
        moments.bottom_bottom,
        moments.top_bottom,
    )


def total(values: "Ints") -> int:
    """The exact sum."""
    if _largest(values) * max(1, len(values)) < 1 << 63:
        return int(values.sum())
    return sum(int((values >> shift & mask).sum()) << shift for shift, mask in ((0, (1 << 31) - 1), (31, -1)))


def dot(one: "Ints", other: "Ints") -> int:
    """The exact sum of products."""
    if _largest(one) * _largest(other) * max(1, len(one)) < 1 << 63:
        return int((one * other).sum())
    found = 0
    for start in range(0, len(one), _CHUNK):
        pieces = [_pieces(values[start : start + _CHUNK]) for values in (one, other)]
        for i, first in enumerate(pieces[0]):
            for j, second in enumerate(pieces[1]):
                found += int((first * second).sum()) << (_PIECE_BITS * (i + j))
    return found


def _pieces(values: "Ints") -> "list[Ints]":
    """Two pieces without sign, and what is above them with it."""
    mask = (1 << _PIECE_BITS) - 1
    return [values & mask, values >> _PIECE_BITS & mask, values >> 2 * _PIECE_BITS]


def _largest(values: "Ints") -> int:
    return max(abs(int(values.max())), abs(int(values.min()))) if len(values) else 0


def buckets_of(values: "Ints") -> "Ints":
    """`statistics.bucket_of` for each value."""
    import numpy as np

    clipped = np.maximum(values, 32)
    power = np.frexp(clipped.astype(np.float64))[1].astype(np.int64) - 1
    found = np.minimum(power * 32 + (clipped >> (power - 5) & 31), FAILED - 1)
    for index in np.flatnonzero(clipped >= _EXACT):
        found[index] = bucket_of(int(values[index]))
    return found


def histogram_of(values: "Ints") -> dict[int, int]:
    """The histogram of whole numbers, such as nanoseconds."""
    import numpy as np

    counts = np.bincount(buckets_of(values), minlength=1)
    return {int(bucket): int(counts[bucket]) for bucket in np.flatnonzero(counts)}


class Tally:
    """One metric's values by unit, filled by batches of observations that come as arrays; its moments can be asked for at any time.

    Units are numbered from 0 on by whoever fills it, and each stays in the arm that it is first given.
    """

    def __init__(self, arms: int) -> None:
        import numpy as np

        self._arms = arms
        self._tops = np.zeros(0, np.int64)
        self._bottoms = np.zeros(0, np.int64)
        self._arm = np.zeros(0, np.int64)

    def add(self, units: "Ints", arms: "Ints", tops: "Ints", bottoms: "Ints") -> None:
        """Observations: the unit, its arm's number, numerator and denominator of each. A unit's sums must fit into 62 bits."""
        import numpy as np

        if not len(units):
            return
        self._grow(int(units.max()) + 1)
        self._arm[units] = arms
        np.add.at(self._tops, units, tops)
        np.add.at(self._bottoms, units, bottoms)

    def _grow(self, count: int) -> None:
        import numpy as np

        have = len(self._tops)
        if count > have:
            more = np.zeros(max(count, 2 * have) - have, np.int64)
            self._tops = np.concatenate([self._tops, more])
            self._bottoms = np.concatenate([self._bottoms, more])
            self._arm = np.concatenate([self._arm, more])

    def moments(self) -> list[Moments]:
        """Of each arm."""
        found = []
        for arm in range(self._arms):
            mine = self._arm == arm
            found.append(moments_of_arrays(self._tops[mine], self._bottoms[mine]))
        return found
