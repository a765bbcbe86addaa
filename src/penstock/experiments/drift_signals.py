"""The signals in which drift is looked for, and how an observation of each becomes numbers between 0 and 1 with known means."""

import math
from typing import Literal

import msgspec
import numpy as np

from penstock.core.exchange import FROM_CACHE, Exchange
from penstock.experiments.drift_evidence import Array, both_sides, bounds_of
from penstock.experiments.drift_text import BUCKETS, LANGUAGES
from penstock.experiments.metrics import LARGEST
from penstock.experiments.statistics import bucket_floor, bucket_of

Kind = Literal["number", "flag", "choice", "words"]
Against = Literal["itself", "before"]
_TOP = 4  # languages that are watched one by one; the others together
ERRORS = 3.0  # standard errors of the reference that are no change
FLOOR = 0.02  # and so much besides: what is smaller is nobody's business
_NANO = 1_000_000_000


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One signal. `worse` is the direction that is compared with the version before; "": it is not."""

    name: str
    kind: Kind
    of: Literal["input", "output", "feedback"]
    definition: str
    worse: Literal["", "down"] = ""


SIGNALS: dict[str, Signal] = {
    one.name: one
    for one in (
        Signal(name="input_length", kind="number", of="input", definition="Characters of what the user said last."),
        Signal(
            name="input_language",
            kind="choice",
            of="input",
            definition="Its language, by script or function words.",
        ),
        Signal(
            name="input_topic",
            kind="words",
            of="input",
            definition=f"Which of {BUCKETS} buckets its words are hashed into.",
        ),
        Signal(
            name="output_length", kind="number", of="output", definition="Tokens of an answer that came to its end."
        ),
        Signal(
            name="perplexity",
            kind="number",
            of="output",
            definition="Of an answer, under the model itself, as its engine told it.",
        ),
        Signal(
            name="refusal",
            kind="flag",
            of="output",
            definition="Whether the answer is a refusal by the model's patterns, or a content rule stopped it.",
        ),
        Signal(
            name="success",
            kind="flag",
            of="feedback",
            definition="What the first feedback on a request that says so tells of its success.",
            worse="down",
        ),
        Signal(
            name="rating",
            kind="number",
            of="feedback",
            definition="The first rating of a request.",
            worse="down",
        ),
    )
}
WATCHES = len(SIGNALS) + sum(bool(one.worse) for one in SIGNALS.values())  # at most, of one model and arm


class Tally(msgspec.Struct, kw_only=True):
    """Observations of one signal, counted by key; it merges exactly.

    Keys are buckets 3 % wide of numbers, places in LANGUAGES, numbers of buckets of words, and 1 for yes. `total` is the sum of what was measured.
    """

    n: int = 0
    total: float = 0.0
    counts: dict[int, int] = {}

    def add(self, kind: Kind, value: float) -> None:
        """Count one observation."""
        self.n += 1
        if kind == "words":
            bits = int(value)
            for key in range(BUCKETS):
                if bits >> key & 1:
                    self.counts[key] = self.counts.get(key, 0) + 1
            return
        self.total += value
        if kind == "flag" and not value:
            return
        key = key_of(kind, value)
        self.counts[key] = self.counts.get(key, 0) + 1

    def merged(self, other: "Tally") -> "Tally":
        """Both together."""
        counts = dict(self.counts)
        for key, count in other.counts.items():
            counts[key] = counts.get(key, 0) + count
        return Tally(n=self.n + other.n, total=self.total + other.total, counts=counts)

    @property
    def mean(self) -> float:
        """Of what was measured."""
        return self.total / self.n if self.n else 0.0


def key_of(kind: Kind, value: float) -> int:
    """Where a tally counts `value`; keys of numbers sort as they do."""
    if kind != "number":
        return int(value)
    size = bucket_of(min(round(abs(value) * _NANO), 1 << 62))
    return size if value >= 0 else -size


def number_at(key: int) -> float:
    """The least number that is counted under `key` (of negative ones the largest)."""
    return math.copysign(bucket_floor(abs(key)) / _NANO, key)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a signal is compared with. `top` are the languages that are watched one by one."""

    tally: Tally
    top: tuple[int, ...] = ()


def referring(kind: Kind, tally: Tally, top: tuple[int, ...] = ()) -> Reference:
    """A reference of these observations; `top` stays as it was where there was one before."""
    if kind == "choice" and not top:
        ranked = sorted(tally.counts, key=lambda key: (-tally.counts[key], key))
        top = tuple(ranked[:_TOP])
    return Reference(tally=tally, top=top)


class Frame:
    """A reference made ready to turn observations into numbers.

    A number becomes its rank within the reference and its distance from the middle rank; a language, indicators of the most frequent ones and of the rest; words, an
    indicator for each bucket. Every one of these has a mean in the reference, and what is within `ERRORS` standard errors of it and `FLOOR` is no change.
    """

    def __init__(self, signal: Signal, reference: Reference, against: Against) -> None:
        self.kind = signal.kind
        tally = reference.tally
        self.top = reference.top
        if self.kind == "number":
            self._keys = np.array(sorted(tally.counts))
            counts = np.array([tally.counts[key] for key in self._keys.tolist()], dtype=np.float64)
            below = np.concatenate([[0.0], np.cumsum(counts)])
            self._below, self._n = below, float(tally.n)
            ranks = (below[:-1] + below[1:]) / (2 * tally.n)
            spread = float(np.dot(counts, np.abs(2 * ranks - 1)) / tally.n)
            means = np.array([0.5, spread])
            errors = np.full(2, math.sqrt(1 / 12 / tally.n))
        else:
            means, errors = _shares(self._hits(tally), tally.n)
        bounds = bounds_of(means, ERRORS * errors + FLOOR)
        count = len(means)
        # Against the version before, only what is worse counts: the first number, downward.
        self._sides = np.arange(2 * count) if against == "itself" else np.array([count])
        self.bounds = bounds[self._sides]

    def values(self, value: float) -> Array:
        """The numbers of one observation, both sides of each."""
        if self.kind == "number":
            key = key_of("number", value)
            at = int(np.searchsorted(self._keys, key))
            there = at < len(self._keys) and int(self._keys[at]) == key
            high = self._below[at + 1] if there else self._below[at]
            rank = (self._below[at] + high) / (2 * self._n)
            numbers = np.array([rank, abs(2 * rank - 1)])
        elif self.kind == "flag":
            numbers = np.array([float(bool(value))])
        elif self.kind == "choice":
            hits = [float(int(value) == key) for key in self.top]
            numbers = np.array([*hits, 1.0 - sum(hits)])
        else:
            bits = int(value)
            numbers = np.array([float(bits >> key & 1) for key in range(BUCKETS)])
        sides: Array = both_sides(numbers)[self._sides]
        return sides

    def _hits(self, tally: Tally) -> list[int]:
        if self.kind == "flag":
            return [tally.counts.get(1, 0)]
        if self.kind == "choice":
            hits = [tally.counts.get(key, 0) for key in self.top]
            return [*hits, tally.n - sum(hits)]
        return [tally.counts.get(key, 0) for key in range(BUCKETS)]


def _shares(hits: list[int], n: int) -> tuple[Array, Array]:
    """Shares, and their standard errors hedged by two more of each outcome (Agresti and Coull 1998): a share of 0 is not known for sure."""
    counts = np.array(hits, dtype=np.float64)
    hedged = (counts + 2) / (n + 4)
    return counts / n, np.sqrt(hedged * (1 - hedged) / (n + 4))


def observed(exchange: Exchange) -> list[tuple[str, float]]:
    """What an exchange tells: (signal, value). Of those that the gateway did not notice, only what an engine said of the answer.

    Requests that failed tell nothing: their clients ask again, and what is asked would seem to have changed.
    """
    stopped = exchange.finish == "content_filter" or exchange.error == "content_filter"
    if exchange.outcome != "ok" and not stopped:
        return []
    found: list[tuple[str, float]] = []
    noticed, quality = exchange.noticed, exchange.quality
    if noticed is not None:
        found.append(("input_length", float(noticed.characters)))
        if noticed.characters:
            language = LANGUAGES.index(noticed.language) if noticed.language in LANGUAGES else 0
            found.append(("input_language", float(language)))
            found.append(("input_topic", float(noticed.words)))
    if exchange.cache in FROM_CACHE:
        return found
    if quality is not None or noticed is not None:
        found.append(("refusal", float(stopped or (quality is not None and quality.refused))))
    if exchange.outcome != "ok":
        return found
    if noticed is not None and exchange.usage.completion > 0:
        found.append(("output_length", float(exchange.usage.completion)))
    if quality is not None and quality.scored:
        found.append(("perplexity", max(0.0, -quality.logprob / quality.scored)))
    return found


def feedback_value(metric: str, numerator: int) -> tuple[str, float] | None:
    """A word of feedback as a signal, given how experiments' metrics count it (ratings in millionths)."""
    if metric == "success":
        return metric, float(numerator)
    if metric == "rating":
        return metric, max(-LARGEST, min(LARGEST, numerator / 1e6))
    return None


def shown(signal: Signal, value: float) -> float:
    """A mean as people read it: of perplexity, the number itself and not its logarithm."""
    return math.exp(min(700.0, value)) if signal.name == "perplexity" else value
