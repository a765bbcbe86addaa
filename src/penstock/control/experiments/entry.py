"""What gateways are told of a running experiment beyond its arms: a bandit's contexts and the seed of its epoch, and how often a second model answers."""

from collections.abc import Mapping, Sequence

import msgspec

from penstock.core.snapshot import Arm, ContextCell, Contexts, InterleavePlan, ShadowPlan
from penstock.delivery.pools import BuildKey
from penstock.experiments.arms import ArmSpec, cascade_of
from penstock.experiments.assignment import covered, spans_by_weight
from penstock.experiments.design import Design
from penstock.experiments.strategies import InterleavedSpec, ShadowSpec

JUDGE = "@judge"  # among the resolved arms: no arm can be called so


class ResolvedArm(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm's pool or build was when the experiment started: an alias that moves later does not move the arm."""

    pool: str
    build: BuildKey | None = None
    replicas: int = 1  # of the build, that it needs


Shares = Mapping[str, float]
Spans = tuple[tuple[tuple[float, float], ...], ...]


def seed_of(design: Design, name: str, epoch: int) -> str:
    """The seed of the hash. A bandit draws each unit anew in each epoch: only so is its share the chance that the unit had."""
    seed = design.seed or name
    return f"{seed}:{epoch}" if design.strategy == "bandit" else seed


def contexts_of(design: Design, shares: Mapping[str, Shares] | None) -> Contexts | None:
    """A bandit's contexts with the arms' ranges in each; None if it has none."""
    context = design.bandit.context if design.bandit is not None else None
    if context is None or not shares:
        return None
    names = [arm.name for arm in design.arms]
    cells = []
    for name in context.names:
        spans = spans_by_weight(tuple(shares[name][arm] for arm in names))
        cells.append(ContextCell(name=name, ranges=dict(zip(names, spans, strict=True))))
    return Contexts(by=context.by, cells=tuple(cells), edges=context.edges)


def first_contexts(design: Design) -> dict[str, dict[str, float]]:
    """The shares that each context begins with: those of the whole."""
    return {name: design.shares() for name in design.contexts}


def arm_of(
    arm: ArmSpec, resolved: Mapping[str, ResolvedArm], ranges: Sequence[Sequence[float]], weight: float | None
) -> Arm:
    """An arm as gateways see it; without a `weight` its own is the width of its ranges."""
    spans = tuple((float(low), float(high)) for low, high in ranges)
    pool = resolved[arm.name].pool
    cascade = arm.cascade
    return Arm(
        name=arm.name,
        pool=pool,
        weight=round(sum(high - low for low, high in spans), 9) if weight is None else weight,
        params=arm.params,
        system=arm.system,
        policy=arm.policy,
        ranges=spans,
        cascade=None if cascade is None else cascade_of(cascade, resolved[first_of(arm.name)].pool, pool),
    )


def first_of(arm: str) -> str:
    """Among the resolved arms: the pool that an arm's cascade asks first. No arm can be called so."""
    return f"@first/{arm}"


def first_spans(design: Design) -> Spans:
    """The ranges that the arms begin with."""
    if any(arm.ranges for arm in design.arms):
        return tuple(tuple(sorted(arm.ranges)) for arm in design.arms)
    shares = design.shares()
    spans = spans_by_weight(tuple(shares.get(arm.name, 0.0) for arm in design.arms))
    return spans if design.coverage == 1 else covered(spans, design.coverage)


def shadow_of(design: Design, resolved: Mapping[str, ResolvedArm], dose: float | None) -> ShadowPlan | None:
    """How gateways copy requests, if they do; `dose` is the share now, None: as registered."""
    if design.strategy != "shadow":
        return None
    spec = design.shadow or ShadowSpec()
    return ShadowPlan(
        share=spec.share if dose is None else dose,
        queue=spec.queue,
        in_flight=spec.in_flight,
        deadline_s=spec.deadline_s,
        judge=resolved[JUDGE].pool if JUDGE in resolved else "",
    )


def interleave_of(design: Design, dose: float | None) -> InterleavePlan | None:
    """How gateways show two answers, if they do."""
    if design.strategy != "interleaved":
        return None
    spec = design.interleaved or InterleavedSpec()
    return InterleavePlan(share=spec.share if dose is None else dose, show=spec.show, patience_s=spec.patience_s)
