"""Several versions ranked by votes on pairs of them: Bradley-Terry strengths with confidence sequences, and which one is the best.

Every vote is between the control and one treatment; the fit puts all of them on one scale, so that two treatments are compared by way of
the control, with the interval that this indirect comparison deserves.
"""

import math

import msgspec

from penstock.experiments.bradley_terry import Strength, bradley_terry
from penstock.experiments.comparisons import MIN_PLANNED
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design
from penstock.experiments.pairs import votes


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """One version, the strongest first. `strength` is the logarithm of its odds against the control, whose own is 0; None where it is infinite.

    `stronger_than` names the versions that it beats for certain, at all looks together.
    """

    arm: str
    metric: str
    strength: float | None
    lower: float | None
    upper: float | None
    stronger_than: tuple[str, ...] = ()


def contrasts(design: Design, statistics: Statistics, metric: str) -> dict[str, dict[str, Strength]]:
    """By version and other version, how much stronger the other one is; empty until every version has been voted on.

    Each version's contrasts share alpha: the best one is named wrongly only if one of the truly best version's is wrong.
    """
    wins: dict[tuple[str, str], float] = {}
    for arm in design.treatments:
        won, lost, _ties = votes(statistics, arm, metric)
        if not won + lost:
            return {}
        wins[arm, design.incumbent], wins[design.incumbent, arm] = won, lost
    names = (design.incumbent, *design.treatments)
    planned = max(MIN_PLANNED, design.planned().always_valid * len(design.treatments))
    alpha = design.plan.alpha / len(design.treatments)
    return {name: bradley_terry(wins, name, alpha=alpha, planned=planned) for name in names}


def ranked(design: Design, statistics: Statistics, metric: str) -> tuple[Ranked, ...]:
    """All versions by their strength; nothing is said of two versions alone, whose votes say it all."""
    if len(design.treatments) < 2:
        return ()
    found = contrasts(design, statistics, metric)
    if not found:
        return ()
    of_control = found[design.incumbent]
    order = sorted(of_control, key=lambda name: (-of_control[name].value, name))
    return tuple(
        Ranked(
            arm=name,
            metric=metric,
            strength=_finite(of_control[name].value),
            lower=_finite(of_control[name].low),
            upper=_finite(of_control[name].high),
            stronger_than=tuple(other for other in order if other != name and found[name][other].high < 0),
        )
        for name in order
    )


def best_of(design: Design, statistics: Statistics, metric: str) -> str:
    """The version to go with; "" while there is none.

    It is certainly stronger than the control (or is the control, and stronger than all others), and no other one is stronger by more than
    the smallest effect worth seeing.
    """
    found = contrasts(design, statistics, metric)
    if not found:
        return ""
    share = min(0.999, 0.5 + design.primary.minimum_effect)
    little = math.log(share / (1 - share))
    best = min(found, key=lambda name: (-found[design.incumbent][name].value, name))
    for other, strength in found[best].items():
        apart = 0.0 if design.incumbent in (best, other) else little
        if other != best and not strength.high < apart:
            return ""
    return best


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def ranking_in_words(ranking: tuple[Ranked, ...], control: str) -> list[str]:
    """The strongest version, and which ones it certainly beats."""
    if not ranking or ranking[0].strength is None:
        return []
    first = ranking[0]
    beats = " and ".join(first.stronger_than) or "none of the others"
    if first.arm == control:
        return [
            f"By all votes together {control} is the strongest of {len(ranking)} versions; it certainly beats {beats}."
        ]
    ends = "" if first.lower is None or first.upper is None else f", {first.lower:+.2f} to {first.upper:+.2f}"
    return [
        (
            f"By all votes together {first.arm} is the strongest of {len(ranking)} versions (strength {first.strength:+.2f}{ends} against "
            f"{control}); it certainly beats {beats}."
        )
    ]
