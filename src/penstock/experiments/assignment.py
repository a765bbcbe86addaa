"""Assignment: which arm a unit is in, from a stateless hash, so that every gateway worker answers alike without asking anybody.

The hash and the ranges are GrowthBook's (docs.growthbook.io/lib/build-your-own, "Hashing" and "Bucket ranges"), so that an
application which buckets the same users with GrowthBook's SDK and the same seed sees the same arms.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from penstock.core.snapshot import Arm, ExperimentEntry, Unit
from penstock.experiments.eligibility import gate_of
from penstock.experiments.hashing import bucket, fnv32a

_KEPT = 4096  # units whose bucket one compiled experiment remembers
UNEXPOSED = 0  # the epoch of a request that got the incumbent without being part of the comparison

Span = tuple[float, float]
Border = tuple[float, float, "Assignment"]


class Assignment(NamedTuple):
    """Where one request goes.

    `propensity` is the share of units that get this arm; `epoch` is 0 if the request is no part of the comparison
    (the shares have lapsed, or no range covers the unit) and must then not be counted for any arm.
    """

    arm: Arm
    propensity: float
    epoch: int


def spans_by_weight(weights: tuple[float, ...]) -> tuple[tuple[Span, ...], ...]:
    """One range an arm, side by side in their order, as wide as its part of the sum of all weights.

    Raises:
        ValueError: if a weight is negative or all are 0.
    """
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError(f"the weights {weights} must not be negative, and not all 0")
    edges = [sum(weights[:index]) / total for index in range(len(weights) + 1)]
    return tuple(((low, high),) if high > low else () for low, high in pairwise(edges))


def covered(spans: tuple[tuple[Span, ...], ...], coverage: float) -> tuple[tuple[Span, ...], ...]:
    """The ranges when only this share of units takes part: each keeps its start, as GrowthBook's do."""
    return tuple(tuple((low, low + (high - low) * coverage) for low, high in mine) for mine in spans)


def respan(spans: tuple[tuple[Span, ...], ...], weights: tuple[float, ...]) -> tuple[tuple[Span, ...], ...]:
    """New ranges for new weights that move as few units as can be: nested ranges.

    An arm whose share grows keeps all of its units and takes some from arms whose share falls; so raising the treatments' shares
    never moves a treated unit. All of [0, 1) must be covered by `spans`.

    Args:
        spans: the ranges until now, by arm.
        weights: the new weights, by arm.
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    kept: list[list[Span]] = []
    freed: list[Span] = []
    for index, (mine, share) in enumerate(zip(spans, shares, strict=True)):
        # Who stands first gives from its end, who stands last from its start: with two arms the borders stay one.
        left, gone = _cut(mine, share, from_start=index == len(spans) - 1 and index > 0)
        kept.append(left)
        freed.extend(gone)
    freed.sort()
    for index, share in enumerate(shares):
        missing = share - _width(kept[index])
        while missing > 1e-12 and freed:
            nearest = index == len(spans) - 1 and index > 0
            low, high = freed.pop(-1 if nearest else 0)
            if high - low > missing + 1e-12:
                taken = (high - missing, high) if nearest else (low, low + missing)
                freed.insert(len(freed) if nearest else 0, (low, taken[0]) if nearest else (taken[1], high))
            else:
                taken = (low, high)
            kept[index].append(taken)
            missing -= taken[1] - taken[0]
    return tuple(_joined(one) for one in kept)


def _cut(spans: tuple[Span, ...], share: float, *, from_start: bool) -> tuple[list[Span], list[Span]]:
    """What an arm keeps of its ranges when its share is at most `share`, and what it gives away."""
    surplus = _width(list(spans)) - share
    if surplus <= 1e-12:
        return list(spans), []
    kept = sorted(spans)
    gone: list[Span] = []
    while surplus > 1e-12 and kept:
        low, high = kept.pop(0 if from_start else -1)
        if high - low > surplus + 1e-12:
            middle = low + surplus if from_start else high - surplus
            gone.append((low, middle) if from_start else (middle, high))
            kept.append((middle, high) if from_start else (low, middle))
            break
        gone.append((low, high))
        surplus -= high - low
    return sorted(kept), gone


def _width(spans: list[Span]) -> float:
    return sum(high - low for low, high in spans)


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for low, high in sorted(spans):
        if joined and low - joined[-1][1] < 1e-12:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return tuple(joined)


def unit_of(kind: Unit, *, user: str, session: str, key: str, request: str) -> str:
    """The unit of assignment of a request; a request without the wanted one (no `user` sent) is a unit of its own."""
    if kind == "user":
        return user or request
    if kind == "session":
        return session or user or request
    return key if kind == "key" else request


class Assigner:
    """One experiment, ready for the hot path: the seed's part of the hash and the arms' borders are worked out once.

    Holds a bounded memory of buckets; one owner, no threads.
    """

    def __init__(self, entry: ExperimentEntry) -> None:
        """Prepare `entry`.

        Raises:
            ValueError: if it has no arm, no usable weights, or an incumbent that is not among its arms.
        """
        self.entry = entry
        by_name = {arm.name: arm for arm in entry.arms}
        if entry.incumbent not in by_name:
            raise ValueError(f"the incumbent {entry.incumbent!r} of experiment {entry.name!r} is none of its arms")
        self._lapsed = Assignment(by_name[entry.incumbent], 1.0, UNEXPOSED)
        self._expires = entry.expires_at if entry.expires_at is not None else float("inf")
        spans = (
            tuple(arm.ranges for arm in entry.arms)
            if any(arm.ranges for arm in entry.arms)
            else spans_by_weight(tuple(arm.weight for arm in entry.arms))
        )
        self._borders: tuple[Border, ...] = tuple(self._laid(spans))
        contexts = entry.contexts
        self.contextual = contexts is not None
        self.paired = entry.shadow is not None or entry.interleave is not None
        self.gate = gate_of(entry)
        self.sticky = entry.sticky
        self._places = {arm.name: place for place, arm in enumerate(entry.arms)}
        self._cells: dict[str, tuple[Border, ...]] = {}
        self._names: tuple[str, ...] = ()
        self._edges: tuple[int, ...] = ()
        if contexts is not None:
            if len(contexts.cells) != len(contexts.edges) + 1 and contexts.by == "length":
                raise ValueError(f"the experiment {entry.name!r} has {len(contexts.cells)} contexts for its edges")
            self._names, self._edges = tuple(cell.name for cell in contexts.cells), contexts.edges
            for cell in contexts.cells:
                self._cells[cell.name] = tuple(self._laid([cell.ranges.get(arm.name, ()) for arm in entry.arms]))
        laid = (self._borders, *self._cells.values())
        self._served = frozenset(border[2].arm.name for borders in laid for border in borders if border[1] > border[0])
        self._start = fnv32a(entry.seed)
        self._buckets: dict[str, float] = {}

    def serves(self, arm: str) -> bool:
        """Whether some units get the arm now."""
        return arm in self._served

    def place_of(self, arm: str) -> int:
        """The arm's number among the experiment's, from 0."""
        return self._places[arm]

    def _laid(self, spans: Sequence[tuple[Span, ...]]) -> Iterator[Border]:
        for arm, mine in zip(self.entry.arms, spans, strict=True):
            found = Assignment(arm, _width(list(mine)), self.entry.epoch)
            for low, high in mine:
                yield low, high, found

    def context_of(self, tenant: str, tokens: int) -> str:
        """The context of a request of `tenant` whose prompt is estimated at so many tokens; only if `contextual`."""
        if self._edges:
            return self._names[bisect_right(self._edges, tokens)]
        return tenant if tenant in self._cells else self._names[-1]

    def assign(self, unit: str, now: float, context: str = "") -> Assignment:
        """The arm of `unit` at `now` (Unix seconds), by the shares of its context; the incumbent once the shares have lapsed."""
        if now >= self._expires:
            return self._lapsed
        place = self._buckets.get(unit)
        if place is None:
            place = self._bucket(unit)
        for low, high, found in self._cells[context] if context else self._borders:
            if low <= place < high:
                return found
        return self._lapsed

    def _bucket(self, unit: str) -> float:
        if self.entry.hash_version == 1:
            place = bucket(self.entry.seed, unit, 1)
        else:
            place = (fnv32a(str(fnv32a(unit, self._start))) % 10000) / 10000
        if self.entry.unit != "request":  # requests come once
            if len(self._buckets) >= _KEPT:
                self._buckets.clear()
            self._buckets[unit] = place
        return place


def compile_experiment(entry: ExperimentEntry) -> Assigner:
    """`entry`, ready for the hot path: once for each Snapshot that has it.

    Raises:
        ValueError: if the entry contradicts itself.
    """
    return Assigner(entry)


def assign(entry: ExperimentEntry, unit: str, now: float) -> Assignment:
    """The arm of `unit`, once; whoever asks often compiles the entry first.

    Raises:
        ValueError: if the entry contradicts itself.
    """
    return Assigner(entry).assign(unit, now)
