"""E-detectors of a change in the means of bounded numbers.

Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection" (2022), sections 2 and 4. A number y in [0, 1] whose mean is at
most b, whatever came before, has E[1 - f + f y / b] <= 1 for any f in [0, 1]. The Shiryaev-Roberts recursion M' = (M + 1) (1 - f + f y / b) then has E[M] <= n
after n numbers and at every stopping time, and so has the mean of several such M. Crossing a threshold c therefore takes at least c numbers in the mean, and happens within n of
them with a probability of at most n / c (Markov's inequality at the stopping time).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FRACTIONS = np.array(
    [0.03, 0.08, 0.16, 0.32, 0.6, 0.9]
)  # f: small bets see small changes, large ones see large changes soon
_LARGEST = 1e30


def both_sides(values: Array) -> Array:
    """The numbers, and what each lacks to 1: a mean that falls is one of these that rises."""
    sides: Array = np.concatenate([values, 1.0 - values])
    return sides


def bounds_of(means: Array, margins: Array) -> Array:
    """The largest means, on both sides, that are no change."""
    bounds: Array = np.minimum(1.0, both_sides(means) + np.concatenate([margins, margins]))
    return bounds


def nothing_yet(count: int) -> Array:
    """The levels before anything was seen of `count` numbers (both sides counted)."""
    return np.zeros((count, len(FRACTIONS)))


def step(levels: Array, bounds: Array, values: Array) -> Array:
    """The levels after one more observation of the numbers.

    Args:
        levels: of each number (rows) under each bet (columns).
        bounds: what each number's mean is at most where nothing has changed; above 0.
        values: the numbers, between 0 and 1.
    """
    factors = 1.0 - FRACTIONS + np.outer(values / bounds, FRACTIONS)
    after: Array = np.minimum((levels + 1.0) * factors, _LARGEST)
    return after


def evidence(levels: Array) -> float:
    """The mean of all detectors, which is one itself: to be compared with the wished mean time to a false alarm."""
    return float(levels.mean())
