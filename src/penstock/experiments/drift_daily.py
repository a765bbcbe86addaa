"""Two-sample tests of a day against the reference: how far it went (PSI, Kolmogorov-Smirnov), and whether chance does that.

The probabilities hold for samples of any size, so that what is said of false alarms is true of rare classes and short days too. Of numbers it is the
limit of Kolmogorov and Smirnov's, 2 exp(-2 d^2 nm / (n + m)) where it is small, which the exact probability does not exceed there (Wei and Dudley
2012), and still less where numbers are counted in buckets; of shares Fisher's exact test, doubled for its two sides, and Bonferroni's correction over the classes.
"""

import math

import msgspec
import numpy as np

from penstock.experiments.drift_evidence import Array
from penstock.experiments.drift_signals import Kind, Tally
from penstock.experiments.drift_text import BUCKETS

LEAST = 100  # observations of a day, below which nothing is said
MAJOR_PSI = 0.25  # a major shift, by the usual reading of PSI (Siddiqi 2006)
MAJOR_P = 1e-6  # and one that chance shows once in a million tests at most
_BINS = 10


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A day against the reference.

    Attributes:
        n: observations of the day.
        psi: the population stability index, over tenths of the reference, or over classes; of words the largest over their buckets.
        distance: of numbers Kolmogorov and Smirnov's, the largest difference of the distribution functions; else the largest difference of two shares.
        p: how likely chance alone makes a difference like this, at most: of numbers Kolmogorov and Smirnov's, else Fisher's over the classes.
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
    keys = list(range(BUCKETS)) if kind == "words" else [1]
    if kind == "choice":
        keys = sorted(reference.counts.keys() | day.counts.keys())
        psi = _psi(*(np.array([tally.counts.get(key, 0) for key in keys], float) for tally in (reference, day)))
    else:
        psi = max(_psi(_two(reference, key), _two(day, key)) for key in keys)
    hits = [(reference.counts.get(key, 0), day.counts.get(key, 0)) for key in keys]
    return Comparison(
        n=day.n,
        psi=psi,
        distance=max((abs(first / reference.n - second / day.n) for first, second in hits), default=0.0),
        p=min([1.0, *(len(keys) * exact(first, reference.n, second, day.n) for first, second in hits)]),
    )


def exact(first: int, n: int, second: int, m: int) -> float:
    """How likely chance alone sets `first` of n and `second` of m so far apart, whatever the common share is: Fisher's test, the smaller tail twice.

    Given how many there are of both together, those of the first sample follow the hypergeometric distribution, whose terms are summed.
    """
    both = first + second
    least = max(0, both - m)
    k = np.arange(least, min(n, both))
    ratios = np.log((both - k) * (n - k)) - np.log((k + 1) * (m - both + k + 1))
    logs = np.concatenate([[0.0], np.cumsum(ratios)])
    terms = np.exp(logs - logs.max())
    place = first - least
    return min(1.0, 2 * float(min(terms[: place + 1].sum(), terms[place:].sum()) / terms.sum()))


def _numbers(reference: Tally, day: Tally) -> Comparison:
    from scipy.special import kolmogorov  # half a second of imports that starting a process need not pay

    keys = sorted(reference.counts.keys() | day.counts.keys())
    first, second = (np.array([tally.counts.get(key, 0) for key in keys], float) for tally in (reference, day))
    below, above = np.cumsum(first) / reference.n, np.cumsum(second) / day.n
    distance = float(np.abs(below - above).max())
    size = math.sqrt(reference.n * day.n / (reference.n + day.n))
    tenths = np.minimum((below - first / reference.n / 2) * _BINS, _BINS - 1).astype(int)
    bins = [np.bincount(tenths, weights=counts, minlength=_BINS).astype(np.float64) for counts in (first, second)]
    return Comparison(n=day.n, psi=_psi(bins[0], bins[1]), distance=distance, p=float(kolmogorov(distance * size)))


def _two(tally: Tally, key: int) -> Array:
    hits = tally.counts.get(key, 0)
    return np.array([hits, tally.n - hits], float)


def _psi(first: Array, second: Array) -> float:
    """Sum of (q - p) ln (q / p) over the classes that either has; half an observation is added to each, so that no share is 0."""
    seen = (first + second) > 0
    first, second = first[seen] + 0.5, second[seen] + 0.5
    p, q = first / first.sum(), second / second.sum()
    return float(((q - p) * np.log(q / p)).sum())
