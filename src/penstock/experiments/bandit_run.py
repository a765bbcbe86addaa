"""A bandit while it runs: what its epochs showed, who leads, and the shares of the next epoch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from penstock.experiments.adaptive import Batch, Cell, Weighted, one_look, weighted_means
from penstock.experiments.bandit import (
    Belief,
    Seen,
    belief_of_share,
    beliefs_of_means,
    chances,
    floored,
    linear_beliefs,
    top_two,
)
from penstock.experiments.compare import MIN_UNITS, Difference
from penstock.experiments.counted import Layer, Statistics
from penstock.experiments.design import Design
from penstock.experiments.fold import guardrail_limit
from penstock.experiments.metrics import Metric
from penstock.experiments.statistics import Moments
from penstock.experiments.strategies import BanditSpec


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of a bandit in one context ("": all there is): its chance to be the best one, and the share that this gives it.

    `lower` and `upper` are of its mean minus the control's, for one look at a time that was fixed in advance (the end of the experiment,
    say); the comparison's own interval holds at every look. They are of all contexts together.
    """

    arm: str
    context: str
    chance: float
    share: float
    lower: float | None = None
    upper: float | None = None


class Allocation(NamedTuple):
    """Shares by arm, over all contexts and within each, and the chances that they come from, by context and arm."""

    shares: dict[str, float]
    contexts: dict[str, dict[str, float]]
    chances: dict[str, dict[str, float]]


def arm_names(design: Design) -> tuple[str, ...]:
    """The arms in their order."""
    return tuple(arm.name for arm in design.arms)


def batches_of(design: Design, statistics: Statistics, metric: str) -> list[Batch]:
    """The epochs, oldest first, each by context."""
    arms = arm_names(design)
    found: list[Batch] = []
    for epoch in sorted(statistics.shares):
        if not design.contexts:
            moments = {arm: statistics.moments.get((epoch, arm, metric), Moments()) for arm in arms}
            units = {arm: statistics.units(epoch, arm) for arm in arms}
            found.append({"": Cell(statistics.shares[epoch], units, moments)})
            continue
        cells = {}
        for context in design.contexts:
            layers = {arm: statistics.layers.get((epoch, context, arm, metric), Layer()).moments for arm in arms}
            counts = {arm: statistics.cell_units(epoch, context, arm) for arm in arms}
            cells[context] = Cell(statistics.contexts[epoch][context], counts, layers)
        found.append(cells)
    return found


def weighted_of(design: Design, statistics: Statistics, metric: Metric, arms: Sequence[str] = ()) -> Weighted:
    """The adaptively weighted means of `arms` (all), in numerators over denominators."""
    return weighted_means(
        batches_of(design, statistics, metric.name),
        arms or arm_names(design),
        proportion=metric.type == "proportion",
    )


def units_of(statistics: Statistics, design: Design) -> dict[str, int]:
    """How many units each arm has seen, over all epochs."""
    return {arm: sum(statistics.units(epoch, arm) for epoch in statistics.shares) for arm in arm_names(design)}


def allocated_difference(
    design: Design,
    statistics: Statistics,
    metric: Metric,
    arm: str,
    other: str = "",
    *,
    weighted: Weighted | None = None,
) -> Difference | None:
    """`arm` minus `other` (the control), adaptively weighted; None below `MIN_UNITS` units of one of them, or if nothing has varied yet.

    `weighted` are the means of the arms, if they are known already.
    """
    other = other or design.incumbent
    units = units_of(statistics, design)
    found = weighted if weighted is not None else weighted_of(design, statistics, metric, (arm, other))
    between = found.difference(arm, other)
    if between is None or min(units[arm], units[other]) < MIN_UNITS:
        return None
    middle, variance = between
    if variance <= 0:
        return None
    return Difference(middle * metric.scale, variance * metric.scale**2, sum(units.values()))


def harmful(design: Design, statistics: Statistics) -> tuple[str, ...]:
    """The treatments of which some guardrail has had enough evidence: they get no traffic any more."""
    limit = guardrail_limit(design)
    return tuple(
        arm
        for arm in design.treatments
        if any(one.evidence.get(arm, 0.0) >= limit for one in statistics.guardrails.values())
    )


def allocate(design: Design, statistics: Statistics) -> Allocation:
    """The shares of the next epoch, by what all epochs have shown; arms that do harm get none."""
    spec = design.bandit or BanditSpec()
    out = harmful(design, statistics)
    arms = [arm for arm in arm_names(design) if arm not in out]
    units = sum(units_of(statistics, design).values())
    beliefs = _beliefs(design, statistics, arms)
    found: dict[str, dict[str, float]] = {}
    best: dict[str, dict[str, float]] = {}
    none = dict.fromkeys(out, 0.0)
    for context, mine in beliefs.items():
        chance = chances([one.turned() if design.primary_metric.direction == "down" else one for one in mine])
        wanted = top_two(chance, spec.leader) if spec.algorithm == "top_two" else chance
        best[context] = dict(zip(arms, chance, strict=True)) | none
        found[context] = dict(zip(arms, floored(wanted, units, spec.floor), strict=True)) | none
    if not design.contexts:
        return Allocation(found[""], {}, best)
    seen = {
        context: sum(statistics.cell_units(epoch, context, arm) for epoch in statistics.shares for arm in arms) + 1
        for context in design.contexts
    }
    total = sum(seen.values())
    shares = {arm: sum(seen[context] * found[context][arm] for context in seen) / total for arm in arm_names(design)}
    return Allocation(shares, found, best)


def _beliefs(design: Design, statistics: Statistics, arms: Sequence[str]) -> dict[str, list[Belief]]:
    """By context, what is believed of the means of `arms`."""
    metric = design.primary_metric
    pooled = [
        _together(statistics.moments.get((epoch, arm, metric.name)) for epoch in sorted(statistics.shares))
        for arm in arms
    ]
    context = design.bandit.context if design.bandit is not None else None
    if context is None:
        if metric.type == "proportion":
            return {"": [belief_of_share(one) for one in pooled]}
        return {"": beliefs_of_means(pooled, metric.scale)}
    total = _together(pooled)
    prior = total.top / total.bottom * metric.scale if total.bottom else 0.0
    found: dict[str, list[Belief]] = {name: [] for name in context.names}
    for arm in arms:
        seen = [
            Seen(
                features,
                _together(
                    statistics.layers.get((epoch, name, arm, metric.name), Layer()).moments
                    for epoch in sorted(statistics.shares)
                ),
            )
            for name, features in zip(context.names, context.features, strict=True)
        ]
        for name, one in zip(context.names, linear_beliefs(seen, context.features, metric.scale, prior), strict=True):
            found[name].append(one)
    return found


def _together(parts: Iterable[Moments | None]) -> Moments:
    total = Moments()
    for one in parts:
        if one is not None:
            total = total.merged(one)
    return total


def contenders(design: Design, statistics: Statistics) -> tuple[Contender, ...]:
    """All arms in all contexts, with the shares that the next epoch would have."""
    allocation = allocate(design, statistics)
    metric = design.primary_metric
    weighted = weighted_of(design, statistics, metric)
    alpha = design.plan.alpha / len(design.treatments)
    found = []
    for context, chance in allocation.chances.items():
        shares: Mapping[str, float] = allocation.contexts.get(context, allocation.shares)
        for arm in arm_names(design):
            ends = None
            if arm != design.incumbent:
                ends = one_look(weighted, arm, design.incumbent, alpha, proportion=metric.type == "proportion")
            found.append(
                Contender(
                    arm=arm,
                    context=context,
                    chance=chance[arm],
                    share=shares[arm],
                    lower=None if ends is None else ends[0] * metric.scale,
                    upper=None if ends is None else ends[1] * metric.scale,
                )
            )
    return tuple(found)


def is_due(design: Design, statistics: Statistics, *, epoch: int, lasted_s: float) -> bool:
    """Whether the epoch has lasted and seen what the next one needs: `step_s`, `step_units`, and `growth` of all before it."""
    spec = design.bandit or BanditSpec()
    here = before = 0
    for number in statistics.shares:
        count = sum(statistics.units(number, arm) for arm in arm_names(design))
        here, before = (count, before) if number == epoch else (here, before + count)
    return lasted_s >= design.plan.step_s and here >= max(design.plan.step_units, math.ceil(spec.growth * before))
