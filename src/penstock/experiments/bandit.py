"""A bandit's shares: the chance of each arm to be the best one, by what is known so far, never below a floor.

Thompson sampling draws an arm with the probability that it is the best (Thompson 1933; Agrawal and Goyal 2012, "Analysis of Thompson
sampling for the multi-armed bandit problem"); top-two sampling spends a part of it on the runner-up, which finds the best arm sooner at
some cost of regret (Russo 2020, "Simple Bayesian algorithms for best-arm identification", Operations Research 68). Nothing is drawn here:
the probabilities themselves are worked out by quadrature, become shares of the traffic, and hold for a whole epoch.

No arm of K gets less than 1 / (K sqrt n) after n units: a share that falls like a power of n, more slowly than 1 / n, is what the inference
afterwards rests on (Hadad et al. 2021, theorem 2); it adds regret of order sqrt n with a small factor.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from penstock.experiments.statistics import Moments, estimate

if TYPE_CHECKING:
    from numpy import ndarray

BUCKETS = 10_000  # of the hash: a share is a whole number of them
DECAY = 0.5
_GRID = 96  # places for each arm's belief
_REACH = 7.0  # standard deviations that are looked at
_PRIOR_UNITS = 1.0  # what a belief starts with, in units
_SHARED_UNITS = 10.0  # as if so many units had the variance that all arms have together


class Belief(NamedTuple):
    """What is believed of an arm's mean: a Beta(a, b) of a share, else a normal of mean `a` and standard deviation `b`."""

    kind: Literal["beta", "normal"]
    a: float
    b: float

    def turned(self) -> "Belief":
        """The same of what is to be made small."""
        return Belief("beta", self.b, self.a) if self.kind == "beta" else Belief("normal", -self.a, self.b)

    def ends(self) -> tuple[float, float]:
        """Where practically all of it lies."""
        if self.kind == "normal":
            return self.a - _REACH * self.b, self.a + _REACH * self.b
        total = self.a + self.b
        mean, deviation = self.a / total, math.sqrt(self.a * self.b / (total * total * (total + 1)))
        return max(0.0, mean - _REACH * deviation), min(1.0, mean + _REACH * deviation)

    def below(self, at: "ndarray") -> "ndarray":
        """The probability of a mean below each of `at`."""
        from scipy.special import betainc, ndtr  # half a second of imports that starting a process need not pay

        if self.kind == "normal":
            return ndtr((at - self.a) / self.b)  # type: ignore[no-any-return]
        return betainc(self.a, self.b, at.clip(0.0, 1.0))  # type: ignore[no-any-return]


def belief_of_share(moments: Moments) -> Belief:
    """What is believed of a share: uniform before anything is known; units with many requests count as what they tell."""
    found = estimate(moments, proportion=True)
    if found is None:
        return Belief("beta", 1.0 + moments.top, 1.0 + moments.bottom - moments.top)
    share = min(1.0, max(0.0, found.value))
    spread = share * (1 - share)
    count = min(float(moments.bottom), spread / found.variance) if spread > 0 else float(moments.units)
    return Belief("beta", 1.0 + share * count, 1.0 + (1 - share) * count)


def beliefs_of_means(arms: Sequence[Moments], scale: float) -> list[Belief]:
    """What is believed of the arms' means: with one unit's weight at the mean of all to begin with."""
    known = [estimate(moments, scale) for moments in arms]
    found = [one for one in known if one is not None]
    if not found:
        return [Belief("normal", 0.0, 1.0)] * len(arms)
    units = sum(one.units for one in found)
    middle = sum(one.value * one.units for one in found) / units
    shared = sum(one.variance * one.units * one.units for one in found) / units or 1e-12
    beliefs = []
    for one in known:
        count = one.units if one is not None else 0
        own = one.variance * count if one is not None else 0.0
        spread = (count * own + _SHARED_UNITS * shared) / (count + _SHARED_UNITS)
        value = one.value if one is not None else middle
        weight = count + _PRIOR_UNITS
        beliefs.append(
            Belief("normal", (count * value + _PRIOR_UNITS * middle) / weight, math.sqrt(spread / weight) or 1e-12)
        )
    return beliefs


def chances(beliefs: Sequence[Belief]) -> list[float]:
    """The probability of each arm to have the highest mean; they sum to 1."""
    import numpy as np

    if len(beliefs) == 1:
        return [1.0]
    grid = np.unique(np.concatenate([np.linspace(*one.ends(), _GRID) for one in beliefs]))
    middles = (grid[1:] + grid[:-1]) / 2
    mass = [np.diff(one.below(grid)) for one in beliefs]
    below = [one.below(middles) for one in beliefs]
    found = []
    for index, own in enumerate(mass):
        others = np.ones_like(middles)
        for other, curve in enumerate(below):
            if other != index:
                others = others * curve
        found.append(float((own * others).sum()))
    total = sum(found)
    return [one / total for one in found]


def top_two(best: Sequence[float], leader: float) -> list[float]:
    """The shares of top-two sampling: `leader` of the traffic as Thompson sampling, the rest to who is best when the leader is left out.

    Args:
        best: the chance of each arm to be the best.
        leader: between 0 and 1; 0.5 is Russo's proposal.
    """
    rests = [one / max(1e-12, 1 - one) for one in best]
    total = sum(rests)
    return _whole([leader * one + (1 - leader) * one * (total - own) for one, own in zip(best, rests, strict=True)])


def _whole(parts: Sequence[float]) -> list[float]:
    total = sum(parts)
    return [part / total for part in parts]


def floored(shares: Sequence[float], units: int, floor: float = 0.0) -> list[float]:
    """Shares of at least the floor, each a whole number of the hash's 10,000 buckets, summing to 1.

    Args:
        shares: as wanted.
        units: seen so far.
        floor: what each arm gets at least, whatever is known of it.
    """
    count = len(shares)
    least = min(1 / count, max(floor, units**-DECAY / count if units > 0 else 1 / count, 1 / BUCKETS))
    wanted = [(least + (1 - count * least) * share) * BUCKETS for share in shares]
    whole = [max(1, math.floor(one + 1e-9)) for one in wanted]
    # What rounding left over goes to who lost most by it; what it gave too much comes from who has most.
    order = sorted(range(count), key=lambda index: (whole[index] - wanted[index], index))
    for index in order[: max(0, BUCKETS - sum(whole))]:
        whole[index] += 1
    whole[whole.index(max(whole))] += BUCKETS - sum(whole)
    return [one / BUCKETS for one in whole]


class Seen(NamedTuple):
    """What one arm has shown within one context: the moments of the metric."""

    features: tuple[float, ...]
    moments: Moments


def linear_beliefs(
    seen: Sequence[Seen], asked: Sequence[tuple[float, ...]], scale: float, prior: float
) -> list[Belief]:
    """What is believed of an arm's mean in each context, if the mean is linear in the context's features.

    Bayesian linear regression (Agrawal and Goyal 2013, "Thompson sampling for contextual bandits with linear payoffs"): every coefficient
    starts at 0, the first one (the constant) at `prior`, each with one unit's weight. So contexts with little data lean on the others.

    Args:
        seen: of one arm, by context.
        asked: the features of the contexts that a belief is wanted of.
        scale: of the metric.
        prior: the mean of all arms.
    """
    import numpy as np

    width = len(asked[0])
    found = [(np.array(one.features), estimate(one.moments, scale)) for one in seen]
    known = [(features, one) for features, one in found if one is not None]
    units = sum(one.units for _, one in known)
    spread = sum(one.variance * one.units * one.units for _, one in known) / units if units else 0.0
    spread = spread if spread > 0 else max(abs(prior), 1e-6) ** 2
    precision = np.eye(width) * _PRIOR_UNITS
    weighted = np.zeros(width)
    weighted[0] = _PRIOR_UNITS * prior
    for features, one in known:
        precision += one.units * np.outer(features, features)
        weighted += one.units * one.value * features
    inverse = np.linalg.inv(precision)
    middle = inverse @ weighted
    beliefs = []
    for one_asked in asked:
        features = np.array(one_asked)
        deviation = math.sqrt(spread * float(features @ inverse @ features))
        beliefs.append(Belief("normal", float(features @ middle), max(deviation, 1e-12)))
    return beliefs
