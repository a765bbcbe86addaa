"""How two versions differ that answered the same items: differences with confidence intervals."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate less incumbent: of shares the difference, of measures the ratio less one.

    Attributes:
        pairs: items that both answered.
        candidate, incumbent: their shares, or their geometric means.
        estimate, low, high: the difference, and its interval.
        discordant: items that one got right and the other wrong; of measures all.
    """

    pairs: int
    candidate: float
    incumbent: float
    estimate: float
    low: float
    high: float
    discordant: int = 0


def wilson(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    z = _normal(0.5 + confidence / 2)
    share = hits / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def paired_shares(both: int, candidate: int, incumbent: int, neither: int, confidence: float = 0.95) -> Difference:
    """The difference of two shares of the same items: Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10.

    Args:
        both: items that both got right.
        candidate: that the candidate alone did.
        incumbent: that the incumbent alone did.
        neither: that none of them did.
        confidence: of the two-sided interval.
    """
    total = both + candidate + incumbent + neither
    if not total:
        return Difference(pairs=0, candidate=0.0, incumbent=0.0, estimate=0.0, low=-1.0, high=1.0)
    mine, other = (both + candidate) / total, (both + incumbent) / total
    low1, high1 = wilson(both + candidate, total, confidence)
    low2, high2 = wilson(both + incumbent, total, confidence)
    phi = _phi(both, candidate, incumbent, neither)
    down1, up1, down2, up2 = mine - low1, high1 - mine, other - low2, high2 - other
    below = math.sqrt(max(0.0, down1**2 - 2 * phi * down1 * up2 + up2**2))
    above = math.sqrt(max(0.0, up1**2 - 2 * phi * up1 * down2 + down2**2))
    return Difference(
        pairs=total,
        candidate=mine,
        incumbent=other,
        estimate=mine - other,
        low=max(-1.0, mine - other - below),
        high=min(1.0, mine - other + above),
        discordant=candidate + incumbent,
    )


def _phi(both: int, candidate: int, incumbent: int, neither: int) -> float:
    """The pairs' correlation, with the paper's correction for continuity where it is positive."""
    product = (both + candidate) * (incumbent + neither) * (both + incumbent) * (candidate + neither)
    if not product:
        return 0.0
    cross = both * neither - candidate * incumbent
    total = both + candidate + incumbent + neither
    corrected = max(cross - total / 2, 0.0) if cross > 0 else float(cross)
    return corrected / math.sqrt(product)


def paired_ratio(candidate: Sequence[float], incumbent: Sequence[float], confidence: float = 0.95) -> Difference:
    """The ratio of two measures of the same items, all above 0: Student's t on the differences of their logarithms. `estimate` is the ratio less 1."""
    logs = [math.log(mine / other) for mine, other in zip(candidate, incumbent, strict=True)]
    count = len(logs)
    if not count:
        return Difference(pairs=0, candidate=0.0, incumbent=0.0, estimate=0.0, low=-1.0, high=math.inf)
    mean = math.fsum(logs) / count
    if count > 1:
        deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in logs) / (count - 1))
        from scipy.special import stdtrit  # half a second of imports that starting a process need not pay

        spread = float(stdtrit(count - 1, 0.5 + confidence / 2)) * deviation / math.sqrt(count)
    else:
        spread = math.inf
    return Difference(
        pairs=count,
        candidate=_geometric(candidate),
        incumbent=_geometric(incumbent),
        estimate=math.expm1(mean),
        low=math.expm1(mean - spread),
        high=math.expm1(mean + spread) if math.isfinite(spread) and mean + spread < 700 else math.inf,
        discordant=count,
    )


def enough_pairs(difference: Difference, margin: float, confidence: float = 0.95) -> int | None:
    """About how many items would show with 80 % power that the candidate is no worse than by `margin`, if it differs as it seems to; None if it never would.

    Normal approximation: discordant items' share and the estimate as seen (Connor 1987, Biometrics 43, 207-211, with a margin).
    """
    room = difference.estimate + margin
    if room <= 1e-6 or not difference.pairs:
        return None
    share = max(difference.discordant, 1) / difference.pairs
    z = _normal(0.5 + confidence / 2) + _normal(0.8)
    return max(difference.pairs + 1, math.ceil(z * z * max(share - difference.estimate**2, 1e-9) / room**2))


def _normal(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _geometric(values: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(one) for one in values) / len(values))
