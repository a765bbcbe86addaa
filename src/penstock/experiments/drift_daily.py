"""Two-sample tests of a day against the reference: how far it went (PSI, Kolmogorov-Smirnov), and whether chance does that."""

import math

import msgspec
import numpy as np
from scipy.stats import chi2, kstwobign

from penstock.experiments.drift_evidence import Array
from penstock.experiments.drift_signals import Kind, Tally
from penstock.experiments.drift_text import BUCKETS

LEAST = 100  # observations of a day, below which nothing is said
MAJOR_PSI = 0.25  # a major shift, by the usual reading of PSI (Siddiqi 2006)
MAJOR_P = 1e-6  # and one that chance shows once in a million tests
_BINS = 10


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A day against the reference.

    Attributes:
        n: observations of the day.
        psi: the population stability index, over tenths of the reference, or over classes; of words the largest over their buckets.
        distance: of numbers Kolmogorov and Smirnov's, the largest difference of the distribution functions; else the largest difference of two shares.
        p: how likely chance alone makes a difference like this: of numbers Kolmogorov and Smirnov's, else chi-squared's.
    """

    n: int
    psi: float
    distance: float
    p: float

    @property
    def shifted(self) -> bool:
        """Whether the day is another population, and not by chance."""
        return self.psi >= MAJOR_PSI and self.p <= MAJOR_P


def compared(kind: Kind, reference: Tally, day: Tally) -> Comparison | None:
    """How `day` differs from `reference`; None if one of them has too few observations."""
    if min(reference.n, day.n) < LEAST:
        return None
    if kind == "number":
        return _numbers(reference, day)
    if kind == "words":
        each = [_classes(_two(reference, key), _two(day, key)) for key in range(BUCKETS)]
        return Comparison(
            n=day.n,
            psi=max(psi for psi, _, _ in each),
            distance=max(distance for _, distance, _ in each),
            p=min(1.0, BUCKETS * min(p for _, _, p in each)),  # Bonferroni
        )
    if kind == "flag":
        psi, distance, p = _classes(_two(reference, 1), _two(day, 1))
    else:
        keys = sorted(reference.counts.keys() | day.counts.keys())
        psi, distance, p = _classes(*(np.array([t.counts.get(k, 0) for k in keys], float) for t in (reference, day)))
    return Comparison(n=day.n, psi=psi, distance=distance, p=p)


def _numbers(reference: Tally, day: Tally) -> Comparison:
    keys = sorted(reference.counts.keys() | day.counts.keys())
    first, second = (np.array([tally.counts.get(key, 0) for key in keys], float) for tally in (reference, day))
    below, above = np.cumsum(first) / reference.n, np.cumsum(second) / day.n
    distance = float(np.abs(below - above).max())
    size = math.sqrt(reference.n * day.n / (reference.n + day.n))
    tenths = np.minimum((below - first / reference.n / 2) * _BINS, _BINS - 1).astype(int)
    bins = [np.bincount(tenths, weights=counts, minlength=_BINS).astype(np.float64) for counts in (first, second)]
    return Comparison(n=day.n, psi=_psi(bins[0], bins[1]), distance=distance, p=float(kstwobign.sf(distance * size)))


def _two(tally: Tally, key: int) -> Array:
    hits = tally.counts.get(key, 0)
    return np.array([hits, tally.n - hits], float)


def _classes(first: Array, second: Array) -> tuple[float, float, float]:
    n, m = first.sum(), second.sum()
    distance = float(np.abs(first / n - second / m).max())
    both = first + second
    seen = both > 0
    if seen.sum() < 2:
        return 0.0, distance, 1.0
    pooled = both[seen] / (n + m)
    statistic = sum((((c[seen] - c.sum() * pooled) ** 2) / (c.sum() * pooled)).sum() for c in (first, second))
    return _psi(first, second), distance, float(chi2.sf(statistic, int(seen.sum()) - 1))


def _psi(first: Array, second: Array) -> float:
    """Sum of (q - p) ln (q / p) over the classes that either has; half an observation is added to each, so that no share is 0."""
    seen = (first + second) > 0
    first, second = first[seen] + 0.5, second[seen] + 0.5
    p, q = first / first.sum(), second / second.sum()
    return float(((q - p) * np.log(q / p)).sum())
