"""What is counted of an experiment: values that merge exactly, in any order. `fold.Folding` changes them; everybody else reads."""

from collections.abc import Iterator

import msgspec

from penstock.experiments.guardrails import Guardrail
from penstock.experiments.statistics import Moments

_CONTEXTS = 64  # more than an epoch has
Place = tuple[int, str, str]  # epoch, arm, metric
Cell = tuple[int, str, str, str]  # epoch, stratum, arm, metric


class UnitRecord(msgspec.Struct, kw_only=True):
    """What one unit did in one epoch: numerator and denominator by metric, and its bad events by guardrail.

    `stratum` is that of its first request; `past` is the covariate, a whole number.
    """

    arm: str
    first_at: float
    values: dict[str, tuple[int, int]] = {}
    bad: dict[str, int] = {}
    stratum: str = ""
    past: int = 0


class Layer(msgspec.Struct, frozen=True, array_like=True):
    """The moments of one stratum, and the sums that CUPED needs, over the same units: of the covariate, its square and its products."""

    moments: Moments = Moments()
    past: int = 0
    past_past: int = 0
    top_past: int = 0
    bottom_past: int = 0

    def moved(self, before: tuple[int, int], after: tuple[int, int], past: int) -> "Layer":
        """The layer after the values of one unit, whose covariate is `past`, went from `before` to `after`; (0, 0): it was not there."""
        came = (after != (0, 0)) - (before != (0, 0))
        return Layer(
            self.moments.moved(before, after),
            self.past + came * past,
            self.past_past + came * past * past,
            self.top_past + (after[0] - before[0]) * past,
            self.bottom_past + (after[1] - before[1]) * past,
        )

    def merged(self, other: "Layer") -> "Layer":
        """Both together; they must be of different units."""
        return Layer(
            self.moments.merged(other.moments),
            self.past + other.past,
            self.past_past + other.past_past,
            self.top_past + other.top_past,
            self.bottom_past + other.bottom_past,
        )


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One treatment's difference from the control at a planned look."""

    arm: str
    estimate: float
    variance: float
    units: int  # of the treatment, with data
    control_units: int
    value: float
    control_value: float
    freedom: (
        float | None
    )  # degrees of, by Welch's formula; None: infinitely many, as with strata (JSON has no infinity)


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A planned look, taken when the planned number of units was reached."""

    number: int  # from 1
    fraction: float  # of the planned size
    sequence: int  # of ingest: the record that made it due
    taken: tuple[Taken, ...] = ()


class Statistics(msgspec.Struct, kw_only=True):
    """All that is counted of one experiment."""

    moments: dict[Place, Moments] = {}
    histograms: dict[Place, dict[int, int]] = {}
    guardrails: dict[str, Guardrail] = {}
    shares: dict[int, dict[str, float]] = {}  # by epoch and arm, as they were set
    contexts: dict[int, dict[str, dict[str, float]]] = {}  # of a bandit with contexts: shares by epoch, context and arm
    layers: dict[Cell, Layer] = {}  # of experiments with strata or a covariate
    looks: dict[int, Look] = {}  # by number, of experiments with planned looks
    planned: int = 0  # units an arm, written down at the start; 0: it was not, and the design tells

    def units(self, epoch: int, arm: str) -> int:
        """How many units an arm has seen in an epoch."""
        return self.moments.get((epoch, arm, "conversion"), Moments()).units

    def cell_units(self, epoch: int, stratum: str, arm: str) -> int:
        """The same within a stratum."""
        return self.layers.get((epoch, stratum, arm, "conversion"), Layer()).moments.units

    def splits(self) -> Iterator[tuple[int, dict[str, float], dict[str, int]]]:
        """Each time that units were split over the arms: the epoch, the shares, and how many units each arm got."""
        for epoch in sorted(self.shares):
            if epoch in self.contexts:
                for context, shares in sorted(self.contexts[epoch].items()):
                    yield epoch, shares, {arm: self.cell_units(epoch, context, arm) for arm in shares}
            else:
                yield epoch, self.shares[epoch], {arm: self.units(epoch, arm) for arm in self.shares[epoch]}

    def split_of(self, epoch: int, stratum: str) -> tuple[int, dict[int, dict[str, float]]]:
        """The number of the split that a unit came from, and the shares of all splits by their numbers: epochs, or an epoch's contexts."""
        if epoch not in self.contexts:
            return epoch, self.shares
        numbered = {
            number * _CONTEXTS + place: shares
            for number, contexts in self.contexts.items()
            for place, (_, shares) in enumerate(sorted(contexts.items()))
        }
        return epoch * _CONTEXTS + sorted(self.contexts[epoch]).index(stratum), numbered

    def requests(self, epoch: int, arm: str) -> int:
        """How many requests an arm has seen in an epoch."""
        return self.moments.get((epoch, arm, "cost"), Moments()).bottom
