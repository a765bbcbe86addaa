"""Drift of one model and arm: a watch for each signal, fed one observation after the other.

Each watch gathers its reference first, then compares; all of it is determined by the observations and their order.
"""

import msgspec
import numpy as np

from penstock.experiments.drift_daily import Comparison, compared
from penstock.experiments.drift_evidence import evidence, nothing_yet, step
from penstock.experiments.drift_signals import SIGNALS, WATCHES, Against, Frame, Reference, Tally, referring, shown

RUN_LENGTH = 10_000_000  # exchanges to a false alarm of any signal of one model and arm, in the mean at least
THRESHOLD = float(RUN_LENGTH * WATCHES)
FIRST = 200  # observations with which a reference begins to be one
FULL = 1000  # with which it is complete
BORROWED = 100  # that a version must have left to be compared with
_DOUBT = 1000.0  # evidence with which a reference does not take in what it is compared with
_RECENT = 50  # observations that the recent mean looks back on
_DAY_S = 86400


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was found. `at` is the time of the exchange with which it was, `sequence` its place in ingest."""

    signal: str
    against: Against
    at: float
    sequence: int
    watched: int  # observations since the reference was there
    was: float  # mean in the reference
    now: float  # mean of the last observations

    @property
    def words(self) -> str:
        """What changed, for people."""
        than = "the reference" if self.against == "itself" else "the version before"
        if self.signal == "input_topic":
            return f"The words of the input differ from those of {than}, after {self.watched} observations."
        if self.signal == "input_language":
            return f"The languages of the input differ from those of {than}, after {self.watched} observations."
        return f"{self.signal.replace('_', ' ').capitalize()} is {self.now:.4g} of late, {self.was:.4g} in {than}, after {self.watched} observations."


class Watch(msgspec.Struct, kw_only=True):
    """One signal and what it is compared with."""

    signal: str
    against: Against = "itself"
    reference: Reference | None = None  # None: it is being gathered
    growing: Tally | None = None  # what the reference takes in next; None: it is complete
    levels: bytes = b""  # of the detectors
    watched: int = 0
    recent: float = 0.0
    day: int = 0  # since 1970, UTC
    today: Tally | None = None
    alarm: Alarm | None = None


class Group(msgspec.Struct, kw_only=True):
    """A model and arm, with its watches."""

    since: float  # Unix seconds: when its first reference began
    last_at: float = 0.0
    watches: list[Watch] = []

    @property
    def alarms(self) -> list[Alarm]:
        """What was found and not accepted."""
        return [watch.alarm for watch in self.watches if watch.alarm is not None]


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A day that is over, against the reference."""

    signal: str
    day: int
    result: Comparison


def new_group(at: float, before: Group | None = None) -> Group:
    """A group that has seen nothing. `before` is that of the version it replaces: where users say less good of this one, that is an alarm too."""
    watches = [Watch(signal=name, growing=Tally()) for name in SIGNALS]
    for name, signal in SIGNALS.items():
        left = _left(before, name) if before is not None and signal.worse else None
        if left is not None:
            watches.append(Watch(signal=name, against="before", reference=referring(signal.kind, left)))
    return Group(since=at, watches=watches)


def kept_group(group: Group, at: float) -> Group:
    """A group whose version is served again: it is compared with what it was; what was found is over."""
    watches = [
        msgspec.structs.replace(watch, levels=b"", watched=0, alarm=None, today=None)
        for watch in group.watches
        if watch.against == "itself"
    ]
    return Group(since=group.since, last_at=at, watches=watches)


def accepted(group: Group, signal: str | None) -> Group:
    """The group with the changes of `signal` (None: of all) taken for what is to be: their references begin anew."""
    watches: list[Watch] = []
    for watch in group.watches:
        if signal is not None and watch.signal != signal:
            watches.append(watch)
        elif watch.against == "itself":
            watches.append(Watch(signal=watch.signal, growing=Tally()))
    return Group(since=group.since, last_at=group.last_at, watches=watches)


def _left(before: Group, name: str) -> Tally | None:
    """What the version before is known by: its reference, and what is on the way into it."""
    watch = next((one for one in before.watches if one.signal == name and one.against == "itself"), None)
    if watch is None:
        return None
    parts = [watch.reference.tally if watch.reference is not None else Tally(), watch.growing or Tally()]
    whole = parts[0].merged(parts[1])
    return whole if whole.n >= BORROWED else None


class Watching:
    """A group being fed. `days` are those that ended meanwhile; `changed`: there is something to keep."""

    def __init__(self, group: Group, *, threshold: float = THRESHOLD) -> None:
        self.group = group
        self.days: list[Day] = []
        self.changed = False
        self._threshold = threshold
        self._ready: dict[int, tuple[Frame, np.ndarray[tuple[int, int], np.dtype[np.float64]]]] = {}

    def feed(self, signal: str, value: float, at: float, sequence: int) -> None:
        """One observation: fold it into every watch of the signal."""
        self.changed = True
        group = self.group
        group.last_at = max(group.last_at, at)
        for place, watch in enumerate(group.watches):
            if watch.signal == signal:
                self._fold(place, watch, value, at, sequence)

    def _fold(self, place: int, watch: Watch, value: float, at: float, sequence: int) -> None:
        kind = SIGNALS[watch.signal].kind
        if watch.reference is None:
            growing = watch.growing = watch.growing or Tally()
            growing.add(kind, value)
            if growing.n >= FIRST:
                watch.reference = referring(kind, growing)
                watch.growing = Tally()
                watch.recent = growing.mean
            return
        if watch.against == "itself":
            self._day(watch, value, at)
        share = 1 / _RECENT if watch.watched >= _RECENT else 1 / (watch.watched + 1)
        watch.recent += share * (value - watch.recent)
        watch.watched += 1
        if watch.alarm is not None:
            return
        frame, levels = self._ready.get(place) or self._made(watch, watch.reference)
        levels = step(levels, frame.bounds, frame.values(value))
        self._ready[place] = (frame, levels)
        if evidence(levels) >= self._threshold:
            watch.alarm = Alarm(
                signal=watch.signal,
                against=watch.against,
                at=at,
                sequence=sequence,
                watched=watch.watched,
                was=shown(SIGNALS[watch.signal], watch.reference.tally.mean),
                now=shown(SIGNALS[watch.signal], watch.recent),
            )
        elif watch.growing is not None:
            self._grow(place, watch, watch.reference, watch.growing, value)

    @staticmethod
    def _made(watch: Watch, reference: Reference) -> tuple[Frame, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
        frame = Frame(SIGNALS[watch.signal], reference, watch.against)
        levels = nothing_yet(len(frame.bounds))
        stored = np.frombuffer(watch.levels)
        return frame, stored.reshape(levels.shape) if stored.size == levels.size else levels

    def _grow(self, place: int, watch: Watch, reference: Reference, growing: Tally, value: float) -> None:
        kind = SIGNALS[watch.signal].kind
        growing.add(kind, value)
        if reference.tally.n + growing.n < FULL:
            return
        _, levels = self._ready[place]
        if evidence(levels) > _DOUBT:
            watch.growing = Tally()
            return
        watch.reference = referring(kind, reference.tally.merged(growing), reference.top)
        watch.growing = None
        self._ready[place] = (Frame(SIGNALS[watch.signal], watch.reference, watch.against), levels)

    def _day(self, watch: Watch, value: float, at: float) -> None:
        kind, day = SIGNALS[watch.signal].kind, int(at // _DAY_S)
        if watch.today is not None and day > watch.day:
            result = today(watch)
            if result is not None:
                self.days.append(Day(signal=watch.signal, day=watch.day, result=result))
            watch.today = None
        if watch.today is None:
            watch.today, watch.day = Tally(), day
        watch.today.add(kind, value)

    def kept(self) -> Group:
        """The group as it is to be stored."""
        for place, (_, levels) in self._ready.items():
            self.group.watches[place].levels = levels.tobytes()
        return self.group


def today(watch: Watch) -> Comparison | None:
    """The day so far, against the reference."""
    if watch.reference is None or watch.today is None:
        return None
    return compared(SIGNALS[watch.signal].kind, watch.reference.tally, watch.today)


def standing(watch: Watch) -> float:
    """How far a watch is on its way to an alarm: the logarithm of its evidence over that of the threshold, between 0 and 1."""
    if watch.alarm is not None:
        return 1.0
    levels = np.frombuffer(watch.levels)
    if not levels.size:
        return 0.0
    return float(min(1.0, max(0.0, np.log(max(1.0, levels.mean())) / np.log(THRESHOLD))))
