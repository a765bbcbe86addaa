"""Folding records into an experiment's statistics, one after the other in ingest order.

The result depends on the order of the records alone, never on how they were batched: all sums are whole numbers, and a guardrail's
threshold is renewed at given counts of the control's requests.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from penstock.core.exchange import Exchange, Observation
from penstock.experiments.columns import moved_in_all
from penstock.experiments.compare import difference
from penstock.experiments.counted import Cell, Layer, Look, Place, Statistics, Taken, UnitRecord
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
from penstock.experiments.metrics import MICRO, Metric, measures, number, timings
from penstock.experiments.pairs import judged_of, measures_of
from penstock.experiments.statistics import Moments, bucket_of, merged_histogram, quantile

__all__ = ["Folding", "Place", "Statistics", "UnitRecord", "guardrail_limit", "merged"]

_NEVER = 1 << 62  # nanoseconds: only failures are slower
_FEW = 4 * 48  # numbers below which a loop is quicker than arrays


def _waiting() -> defaultdict[tuple[int, str], defaultdict[str, list[int]]]:
    """By epoch and arm, and then by metric: rows of `columns.moved_in_all`."""
    return defaultdict(lambda: defaultdict(list))


class _Cut(NamedTuple):
    """Where values end, in numerators; `whole`: those of a unit's sum."""

    low: int
    high: int
    whole: bool

    def of(self, value: tuple[int, int]) -> tuple[int, int]:
        """A unit's value, cut; what is not there stays so."""
        return value if value == (0, 0) else (min(max(value[0], self.low), self.high), value[1])


class Folding:
    """One experiment's statistics while records are folded into them; one owner, who hands in the units that it needs.

    `touched` and `timed` hold the places whose moments and histograms changed since it was made, `guarded` the guardrails, `looked` the
    planned looks that came due, `layered` the cells of strata.
    """

    def __init__(self, design: Design, statistics: Statistics, *, in_batches: bool = False) -> None:
        """Go on counting into `statistics`; `in_batches`: its moments are up to date only after `settle`, which is quicker."""
        self.design = design
        self.statistics = statistics
        self._waiting = _waiting() if in_batches else None
        self.looked: set[int] = set()
        self.layered: set[Cell] = set()
        self.touched: set[Place] = set()
        self.timed: set[Place] = set()
        self.guarded: set[str] = set()
        self._control = design.incumbent
        self._arms = frozenset(arm.name for arm in design.arms)
        catalogue = design.catalogue
        self._arrivals = [(one.name, 0, 1) for one in catalogue.values() if one.per == "unit"]
        self._events: dict[str, list[Metric]] = {}
        self._scores: dict[str, list[Metric]] = {}  # by evaluator
        for one in catalogue.values():
            if one.event and one.name != "conversion":
                self._events.setdefault(one.event, []).append(one)
            if one.evaluator:
                self._scores.setdefault(one.evaluator, []).append(one)
        self._cuts = {
            name: _Cut(
                round(low / catalogue[name].scale), round(high / catalogue[name].scale), catalogue[name].per == "unit"
            )
            for name, (low, high) in design.winsorise.items()
        }
        self._layers = design.layered
        self._plain = not self._layers and not self._cuts and not design.planned_looks
        self._planned = (statistics.planned or design.planned_units()) * len(design.arms) if design.planned_looks else 0
        self._looking = design.primary.metric if design.planned_looks else ""
        self._margins = {one.metric: one.margin for one in design.guardrails}
        for name in self._margins:
            statistics.guardrails.setdefault(name, Guardrail(metric=name))
        self._limit = guardrail_limit(design)
        self._over_before = self._over()
        self._seen = {
            name: sum(
                sum(counts.values())
                for (_, arm, metric), counts in statistics.histograms.items()
                if arm == self._control and metric == name
            )
            for name in set(SLOW.values())
        }

    def has_tripped(self) -> bool:
        """Whether a guardrail that changed since this was made has tripped; of a bandit, against an arm that it had not before."""
        if self.design.strategy == "bandit":
            return self._over() != self._over_before
        return any(self.statistics.guardrails[name].tripped for name in self.guarded)

    def _over(self) -> frozenset[str]:
        """The arms of which a guardrail has had enough."""
        guardrails = self.statistics.guardrails.values()
        return frozenset(arm for one in guardrails for arm, found in one.evidence.items() if found >= self._limit)

    def knows(self, epoch: int, arm: str) -> bool:
        """Whether there is such an arm in such an epoch: what names another was not counted by this experiment."""
        return arm in self._arms and epoch in self.statistics.shares

    def exposed(self, unit: UnitRecord, exchange: Exchange, sequence: int) -> None:
        """Count a finished exchange of `unit`, which is new if it has no values yet."""
        epoch, arm = exchange.epoch, unit.arm
        found = measures(exchange)
        if not unit.values:
            unit.stratum = self.design.stratum_of(exchange)
            found += self._arrivals
        if self._plain and self._waiting is not None:
            values, waiting = unit.values, self._waiting[epoch, arm]
            for name, top, bottom in found:
                old = values.get(name)
                if old is None:
                    values[name] = (top, bottom)
                    waiting[name] += (0, 0, top, bottom)
                else:
                    new = values[name] = (old[0] + top, old[1] + bottom)
                    waiting[name] += old + new
        else:
            for name, top, bottom in found:
                self._add(unit, epoch, name, top, bottom, sequence)
        for name, guardrail in list(self.statistics.guardrails.items()):
            if is_bad(name, exchange, guardrail.threshold):
                self._bad(unit, epoch, name, sequence)
        for name, bucket in timings(exchange):
            self._time(epoch, arm, name, bucket)
            if arm == self._control:
                self._seen[name] += 1
                self._renew_thresholds(name)

    def paired(self, unit: UnitRecord, exchange: Exchange, sequence: int) -> None:
        """Count two answers to one request of `unit`, whose arm is the treatment's."""
        if not unit.values:
            self._add(unit, exchange.epoch, "conversion", 0, 1, sequence)
        for name, top, bottom in measures_of(exchange):
            self._add(unit, exchange.epoch, name, top, bottom, sequence)
        self.voted(unit, exchange.epoch, "judged", judged_of(exchange), sequence)

    def voted(self, unit: UnitRecord, epoch: int, name: str, vote: str, sequence: int) -> None:
        """Count a vote (`won`, `lost` or `tie`; of a unit's the first that is no tie) on two answers."""
        if vote == "tie":
            self._add(unit, epoch, f"{name}=", 1, 1, sequence)
        elif vote and name not in unit.values:
            self._add(unit, epoch, name, int(vote == "won"), 1, sequence)

    def told(self, unit: UnitRecord, epoch: int, name: str, numerator: int, sequence: int) -> None:
        """Count what was told of a request of `unit`: success, rating, conversion or reports, each once a request."""
        if name == "conversion":
            if unit.values.get(name, (0, 1))[0] == 0:
                self._add(unit, epoch, name, 1, 0, sequence)
        else:
            self._add(unit, epoch, name, numerator, 0 if name == "reports" else 1, sequence)
        if name in self._margins and is_bad_word(name, numerator):
            self._bad(unit, epoch, name, sequence)

    def happened(self, unit: UnitRecord, epoch: int, observation: Observation, sequence: int) -> str:
        """Count an event of `unit` for the metrics that are read from it; the reason if one could not be: it needs a value."""
        reason = ""
        for metric in self._read_from(observation):
            after = observation.at - unit.first_at
            windowed = metric.after_s > 0 or metric.within_s is not None
            if windowed and not metric.after_s <= after <= (metric.within_s or math.inf):
                continue
            if metric.type == "proportion" and metric.per == "unit":
                if unit.values.get(metric.name, (0, 1))[0] == 0:
                    self._add(unit, epoch, metric.name, 1, 0, sequence)
                continue
            value = number(observation.value)
            if value is None:
                reason = "event_without_value" if observation.value is None else reason
                continue
            if metric.quantile is not None:
                self._time(epoch, unit.arm, metric.name, bucket_of(value))
            top = int(2 * value >= MICRO) if metric.type == "proportion" else value
            self._add(unit, epoch, metric.name, top, int(metric.per == "event"), sequence)
        return reason

    def hears(self, observation: Observation) -> bool:
        """Whether some metric is read from events of this name, or from the scores of this evaluator."""
        return bool(self._read_from(observation))

    def _read_from(self, observation: Observation) -> list[Metric]:
        named, scored = self._events.get(observation.name, []), self._scores.get(observation.evaluator, [])
        return named + scored if scored else named

    def _add(self, unit: UnitRecord, epoch: int, name: str, top: int, bottom: int, sequence: int) -> None:
        cut = self._cuts.get(name)
        if cut is not None and not cut.whole:
            top = min(max(top, cut.low), cut.high)
        before = unit.values.get(name, (0, 0))
        after = (before[0] + top, before[1] + bottom)
        unit.values[name] = after
        if cut is not None and cut.whole:
            before, after = cut.of(before), cut.of(after)
        place = (epoch, unit.arm, name)
        if self._waiting is None:
            self.statistics.moments[place] = self.statistics.moments.get(place, Moments()).moved(before, after)
            self.touched.add(place)
        else:
            self._waiting[epoch, unit.arm][name] += before + after
        if self._layers:
            cell = (epoch, unit.stratum, unit.arm, name)
            self.layered.add(cell)
            self.statistics.layers[cell] = self.statistics.layers.get(cell, Layer()).moved(before, after, unit.past)
        if name == self._looking and before == (0, 0):
            self.settle()
            self.look_if_due(sequence)

    def settle(self) -> None:
        """Bring the moments up to date, if changes were to wait."""
        if not self._waiting:
            return
        for (epoch, arm), by_name in self._waiting.items():
            for name, values in by_name.items():
                place = (epoch, arm, name)
                moments = self.statistics.moments.get(place, Moments())
                if len(values) < _FEW:
                    for at in range(0, len(values), 4):
                        moments = moments.moved((values[at], values[at + 1]), (values[at + 2], values[at + 3]))
                else:
                    moments = moments.merged(moved_in_all(values))
                self.statistics.moments[place] = moments
                self.touched.add(place)
        self._waiting = _waiting()

    def look_if_due(self, sequence: int) -> None:
        """Take the planned look that is due, if one is; `sequence` is of the record that made it so."""
        looks = self.design.planned_looks
        number = len(self.statistics.looks) + 1
        units = sum(self._whole(self._looking, arm).units for arm in self._arms)
        if number > looks or units * looks < self._planned * number:
            return
        taken = []
        for arm in self.design.treatments:
            metric = self.design.primary_metric
            found = difference(self.design, self.statistics, metric, arm)
            if found is None:
                continue
            sides = [self._whole(metric.name, name) for name in (arm, self._control)]
            taken.append(
                Taken(
                    arm=arm,
                    estimate=found.estimate,
                    variance=found.variance,
                    units=sides[0].units,
                    control_units=sides[1].units,
                    value=sides[0].top / sides[0].bottom * metric.scale,
                    control_value=sides[1].top / sides[1].bottom * metric.scale,
                    freedom=found.freedom if math.isfinite(found.freedom) else None,
                )
            )
        self.looked.add(number)
        self.statistics.looks[number] = Look(
            number=number, fraction=number / looks, sequence=sequence, taken=tuple(taken)
        )

    def _whole(self, name: str, arm: str) -> Moments:
        total = Moments()
        for epoch in self.statistics.shares:
            total = total.merged(self.statistics.moments.get((epoch, arm, name), Moments()))
        return total

    def _time(self, epoch: int, arm: str, name: str, bucket: int) -> None:
        place = (epoch, arm, name)
        histogram = self.statistics.histograms.setdefault(place, {})
        histogram[bucket] = histogram.get(bucket, 0) + 1
        self.timed.add(place)

    def _bad(self, unit: UnitRecord, epoch: int, name: str, sequence: int) -> None:
        count = unit.bad.get(name, 0)
        if count >= PER_UNIT:
            return
        unit.bad[name] = count + 1
        self.guarded.add(name)
        split, shares = self.statistics.split_of(epoch, unit.stratum)
        self.statistics.guardrails[name] = with_bad_event(
            self.statistics.guardrails[name],
            epoch=split,
            arm=unit.arm,
            control=self._control,
            shares=shares,
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
