"""How often one of two is preferred: a test that may be looked at after every vote, sharp for the difference worth seeing.

The evidence against a share of `p` is a mixture of likelihood ratios of shares around it, at a quarter to four times the smallest effect
worth seeing on either side; the interval is all shares that it does not speak against. By Ville's inequality the true one is ever left
out with a chance of at most alpha (Robbins 1970, "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 41; Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS B 86). Where the
truth is the smallest effect worth seeing, this needs 1.4 times the votes of one fixed look; a mixture over all shares needs twice as many.
"""

import math
from typing import NamedTuple

STEPS = ((0.25, 0.05), (0.5, 0.15), (1.0, 0.6), (2.0, 0.15), (4.0, 0.05))  # times the effect, weight
DEFAULT_EFFECT = 0.05
_EDGE = 1e-4  # nearer to 0 or 1 no alternative lies


class Preferred(NamedTuple):
    """How often the first is preferred to the second, the ends of its confidence sequence, and the log e-value against "as often as not"."""

    value: float
    low: float
    high: float
    log_e: float


def log_evidence(won: int, lost: int, share: float, effect: float) -> float:
    """The logarithm of the e-value against "the first is preferred with the chance `share`"."""
    if (share <= 0 and won) or (share >= 1 and lost):
        return math.inf
    if share <= 0 or share >= 1:
        return 0.0
    terms = []
    for times, weight in STEPS:
        for side in (-1, 1):
            other = min(1 - _EDGE, max(_EDGE, share + side * times * effect))
            ratio = won * math.log(other / share) + lost * math.log((1 - other) / (1 - share))
            terms.append(math.log(weight / 2) + ratio)
    highest = max(terms)
    return highest + math.log(sum(math.exp(term - highest) for term in terms))


def preferred(won: int, lost: int, *, effect: float, alpha: float) -> Preferred:
    """What `won` against `lost` votes say; ties are none of them.

    Args:
        won: votes for the first.
        lost: votes for the second.
        effect: the smallest difference from one half worth seeing.
        alpha: the chance that the interval ever leaves out the truth.
    """
    if won + lost == 0:
        return Preferred(0.5, 0.0, 1.0, 0.0)
    middle = won / (won + lost)
    limit = math.log(1 / alpha)

    def end(outer: float) -> float:
        """The share nearest to `outer` that is not spoken against, rounded outwards."""
        if log_evidence(won, lost, outer, effect) < limit:
            return outer
        inner = middle
        for _ in range(50):
            between = (outer + inner) / 2
            excluded = log_evidence(won, lost, between, effect) >= limit
            outer, inner = (between, inner) if excluded else (outer, between)
        return outer

    return Preferred(middle, end(0.0), end(1.0), log_evidence(won, lost, 0.5, effect))
