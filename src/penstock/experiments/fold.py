"""Folding records into an experiment's statistics, one after the other in ingest order.

The result depends on the order of the records alone, never on how they were batched: all sums are whole numbers, and a guardrail's
threshold is renewed at given counts of the control's requests.
"""

import math
from collections.abc import Mapping

import msgspec

from penstock.core.exchange import Exchange
from penstock.experiments.design import Design
from penstock.experiments.guardrails import (
    FIRST_THRESHOLD,
    PER_UNIT,
    SLOW,
    Guardrail,
    is_bad,
    is_bad_word,
    with_bad_event,
)
from penstock.experiments.metrics import measures, timings
from penstock.experiments.statistics import Moments, merged_histogram, quantile

Place = tuple[int, str, str]  # epoch, arm, metric
_NEVER = 1 << 62  # nanoseconds: only failures are slower


class UnitRecord(msgspec.Struct, kw_only=True):
    """What one unit did in one epoch: numerator and denominator by metric, and its bad events by guardrail."""

    arm: str
    first_at: float
    values: dict[str, tuple[int, int]] = {}
    bad: dict[str, int] = {}


class Statistics(msgspec.Struct, kw_only=True):
    """All that is counted of one experiment. `Folding` changes it; everybody else reads."""

    moments: dict[Place, Moments] = {}
    histograms: dict[Place, dict[int, int]] = {}
    guardrails: dict[str, Guardrail] = {}
    shares: dict[int, dict[str, float]] = {}  # by epoch and arm, as they were set

    def units(self, epoch: int, arm: str) -> int:
        """How many units an arm has seen in an epoch."""
        return self.moments.get((epoch, arm, "conversion"), Moments()).units

    def requests(self, epoch: int, arm: str) -> int:
        """How many requests an arm has seen in an epoch."""
        return self.moments.get((epoch, arm, "cost"), Moments()).bottom


class Folding:
    """One experiment's statistics while records are folded into them; one owner, who hands in the units that it needs.

    `touched` and `timed` hold the places whose moments and histograms changed since it was made, `guarded` the guardrails.
    """

    def __init__(self, design: Design, statistics: Statistics) -> None:
        self.statistics = statistics
        self.touched: set[Place] = set()
        self.timed: set[Place] = set()
        self.guarded: set[str] = set()
        self._control = design.incumbent
        self._arms = frozenset(arm.name for arm in design.arms)
        self._margins = {one.metric: one.margin for one in design.guardrails}
        for name in self._margins:
            statistics.guardrails.setdefault(name, Guardrail(metric=name))
        self._limit = guardrail_limit(design)
        self._seen = {
            name: sum(
                sum(counts.values())
                for (_, arm, metric), counts in statistics.histograms.items()
                if arm == self._control and metric == name
            )
            for name in set(SLOW.values())
        }

    def knows(self, epoch: int, arm: str) -> bool:
        """Whether there is such an arm in such an epoch: what names another was not counted by this experiment."""
        return arm in self._arms and epoch in self.statistics.shares

    def exposed(self, unit: UnitRecord, exchange: Exchange, sequence: int) -> None:
        """Count a finished exchange of `unit`, which is new if it has no values yet."""
        epoch, arm = exchange.epoch, unit.arm
        if not unit.values:
            self._add(unit, epoch, "conversion", 0, 1)
        for name, top, bottom in measures(exchange):
            self._add(unit, epoch, name, top, bottom)
        for name, guardrail in list(self.statistics.guardrails.items()):
            if is_bad(name, exchange, guardrail.threshold):
                self._bad(unit, epoch, name, sequence)
        for name, bucket in timings(exchange):
            place = (epoch, arm, name)
            histogram = self.statistics.histograms.setdefault(place, {})
            histogram[bucket] = histogram.get(bucket, 0) + 1
            self.timed.add(place)
            if arm == self._control:
                self._seen[name] += 1
                self._renew_thresholds(name)

    def told(self, unit: UnitRecord, epoch: int, name: str, numerator: int, sequence: int) -> None:
        """Count what was told of a request of `unit`: success, rating, conversion or reports, each once a request."""
        if name == "conversion":
            if unit.values.get(name, (0, 1))[0] == 0:
                self._add(unit, epoch, name, 1, 0)
        else:
            self._add(unit, epoch, name, numerator, 0 if name == "reports" else 1)
        if name in self._margins and is_bad_word(name, numerator):
            self._bad(unit, epoch, name, sequence)

    def _add(self, unit: UnitRecord, epoch: int, name: str, top: int, bottom: int) -> None:
        before = unit.values.get(name, (0, 0))
        after = (before[0] + top, before[1] + bottom)
        unit.values[name] = after
        place = (epoch, unit.arm, name)
        self.statistics.moments[place] = self.statistics.moments.get(place, Moments()).moved(before, after)
        self.touched.add(place)

    def _bad(self, unit: UnitRecord, epoch: int, name: str, sequence: int) -> None:
        count = unit.bad.get(name, 0)
        if count >= PER_UNIT:
            return
        unit.bad[name] = count + 1
        self.guarded.add(name)
        self.statistics.guardrails[name] = with_bad_event(
            self.statistics.guardrails[name],
            epoch=epoch,
            arm=unit.arm,
            control=self._control,
            shares=self.statistics.shares,
            margin=self._margins[name],
            limit=self._limit,
            sequence=sequence,
        )

    def _renew_thresholds(self, name: str) -> None:
        seen = self._seen[name]
        if seen < FIRST_THRESHOLD or seen & (seen - 1):
            return
        control = merged_histogram(
            counts
            for (_, arm, metric), counts in self.statistics.histograms.items()
            if arm == self._control and metric == name
        )
        at = quantile(control, 0.95)
        if at is None:
            return
        threshold = _NEVER if math.isinf(at) else round(at)
        for guardrail, source in SLOW.items():
            if source == name and guardrail in self._margins:
                self.guarded.add(guardrail)
                self.statistics.guardrails[guardrail] = msgspec.structs.replace(
                    self.statistics.guardrails[guardrail], threshold=threshold
                )


def guardrail_limit(design: Design) -> float:
    """The log e-value that trips one guardrail: the design's alpha, split over guardrails and treatments."""
    parts = max(1, len(design.guardrails) * len(design.treatments))
    return math.log(parts / design.plan.guardrail_alpha)


def merged(one: Mapping[Place, Moments], other: Mapping[Place, Moments]) -> dict[Place, Moments]:
    """The moments of two sets of units that have none in common."""
    total = dict(one)
    for place, moments in other.items():
        total[place] = total[place].merged(moments) if place in total else moments
    return total
