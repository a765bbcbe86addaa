"""Scores of answers after the fact: which answers are drawn, what can become of one, and how vectors are compared."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from xxhash import xxh3_64_intdigest

Result = Literal[
    "scored",  # a value was told
    "won",  # of two answers, this one was better in both orders
    "lost",
    "same",  # the judge said in both orders that neither is better
    "identical",  # both have the same words: nobody was asked
    "contradicted",  # the judge preferred another one when they changed places: a tie
    "unpaired",  # waits for an answer of another arm to the same question
    "no_content",  # nothing was kept of it, or it cannot be opened
    "no_reference",  # no reference has its question
    "unreadable",  # the judge's reply says nothing that was asked for
    "failed",  # the model could not be asked, as often as allowed
    "over_budget",
    "too_late",  # older than the evaluator looks back
]
TELLING: frozenset[Result] = frozenset({"scored", "won", "lost", "same", "identical", "contradicted"})
TIES: frozenset[Result] = frozenset({"same", "identical", "contradicted"})

_UNIT = 1 << 64


class Score(NamedTuple):
    """What became of one answer; `value` is told if `result` is a telling one."""

    result: Result
    value: float = 0.0


def drawn(evaluator: str, mark: str, share: float) -> bool:
    """Whether the answer (or question) called `mark` is one of the `share` that `evaluator` looks at: always the same, whoever asks."""
    return share >= 1.0 or xxh3_64_intdigest(f"{evaluator}\0{mark}".encode()) < share * _UNIT


def counted_first(evaluator: str, one: str, other: str) -> bool:
    """Whether a comparison of two arms' answers counts for `one`, as it does in half of all cases; else for `other`."""
    low, high = sorted((one, other))
    return (xxh3_64_intdigest(f"{evaluator}\0{low}\0{high}".encode()) & 1) == (one == low)


def cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The cosine of two vectors, from -1 to 1; None if they have none: other lengths, a length of 0, or what is no number."""
    if len(one) != len(other):
        return None
    try:
        product = math.fsum(a * b for a, b in zip(one, other, strict=True))
        lengths = math.sqrt(math.fsum(a * a for a in one)) * math.sqrt(math.fsum(b * b for b in other))
    except (ValueError, OverflowError):  # infinities that cancel out, sums beyond what a number holds
        return None
    if not (math.isfinite(product) and math.isfinite(lengths)) or lengths <= 0:
        return None
    return max(-1.0, min(1.0, product / lengths))


class Coverage(NamedTuple):
    """How much of what was drawn has been judged. `disagreement` is the share of contradictions among pairs that a judge was asked about."""

    drawn: int
    told: int
    ties: int
    disagreement: float | None


def coverage(counts: Mapping[str, int]) -> Coverage:
    """What `counts` of results say."""
    asked = sum(counts.get(name, 0) for name in ("won", "lost", "same", "contradicted"))
    return Coverage(
        drawn=sum(counts.values()),
        told=sum(counts.get(name, 0) for name in TELLING),
        ties=sum(counts.get(name, 0) for name in TIES),
        disagreement=counts.get("contradicted", 0) / asked if asked else None,
    )
