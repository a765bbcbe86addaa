"""What a precision costs and gains: speed with its interval over runs, quality against the widest build on the same items, money for a thousand answers."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from penstock.registry.comparison import Figure, ItemResult
from penstock.registry.paired import paired_ratio, paired_shares, wilson


class SpeedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a measurement: all its prompts, asked some at a time."""

    answers: int
    tokens: int
    seconds: float


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Geometric means over runs; the interval is of tokens a second, 95 %, and there is none of a single run.

    Attributes:
        seconds_per_answer: of the whole machine, not of one client's waiting: seconds of a run through its answers.
    """

    runs: int
    tokens_per_second: float
    low: float | None
    high: float | None
    seconds_per_answer: float
    tokens_per_answer: float


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of a suite, and how it differs from the build that it is compared with.

    Attributes:
        measure: `right` is a share, more is better; `perplexity` a geometric mean, less is better.
        difference: of shares in points of 1, of perplexity as a share of the other's; None: it is the other, or that was not measured.
    """

    suite: str
    measure: Literal["right", "perplexity"]
    items: int
    value: float
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


def speed_of(runs: Sequence[SpeedRun]) -> Speed | None:
    """What `runs` say together; None if no run made a token. The interval is Student's t on the logarithms of the rates."""
    good = [run for run in runs if run.tokens and run.answers and run.seconds > 0]
    if not good:
        return None
    rates = [run.tokens / run.seconds for run in good]
    spread = paired_ratio(rates, [1.0] * len(rates))
    return Speed(
        runs=len(good),
        tokens_per_second=1 + spread.estimate,
        low=1 + spread.low if len(good) > 1 else None,
        high=1 + spread.high if len(good) > 1 else None,
        seconds_per_answer=_geometric([run.seconds / run.answers for run in good]),
        tokens_per_answer=sum(run.tokens for run in good) / sum(run.answers for run in good),
    )


def speed_figures(runs: Sequence[SpeedRun]) -> list[Figure]:
    """What runs say, as figures of an evaluation."""
    found = speed_of(runs)
    if found is None:
        return []
    rate: Figure = {"slice": "", "measure": "tokens_per_second", "items": found.runs, "value": found.tokens_per_second}
    if found.low is not None and found.high is not None:
        rate |= {"low": found.low, "high": found.high}
    others = (("seconds_per_answer", found.seconds_per_answer), ("tokens_per_answer", found.tokens_per_answer))
    more: list[Figure] = [{"slice": "", "measure": name, "items": found.runs, "value": value} for name, value in others]
    return [rate, *more]


def quality_of(suite: str, items: Sequence[ItemResult], others: Sequence[ItemResult] | None) -> list[Quality]:
    """What a suite's items say of a build, against `others` of the build that it is compared with, on the items that both answered."""
    found: list[Quality] = []
    rights = {one.id: bool(one.right) for one in items if one.family == "right" and one.right is not None}
    if rights:
        hits = sum(rights.values())
        low, high = wilson(hits, len(rights))
        mine = Quality(suite=suite, measure="right", items=len(rights), value=hits / len(rights), low=low, high=high)
        found.append(_against_shares(mine, rights, others))
    values = {one.id: one.value for one in items if one.family == "perplexity" and one.value}
    if values:
        mine = Quality(suite=suite, measure="perplexity", items=len(values), value=_geometric(list(values.values())))
        found.append(_against_values(mine, values, others))
    return found


def usd_per_thousand(seconds_per_answer: float, usd_per_hour: float) -> float:
    """US dollars for a thousand answers of a machine that costs so much an hour and does nothing else."""
    return seconds_per_answer * 1000 / 3600 * usd_per_hour


def _against_shares(mine: Quality, rights: dict[str, bool], others: Sequence[ItemResult] | None) -> Quality:
    theirs = {one.id: bool(one.right) for one in others or () if one.family == "right" and one.right is not None}
    cells = [0, 0, 0, 0]
    for name in rights.keys() & theirs.keys():
        cells[(0 if rights[name] else 2) + (0 if theirs[name] else 1)] += 1
    if not sum(cells):
        return mine
    found = paired_shares(cells[0], cells[1], cells[2], cells[3])
    return msgspec.structs.replace(
        mine, difference=found.estimate, difference_low=found.low, difference_high=found.high
    )


def _against_values(mine: Quality, values: dict[str, float], others: Sequence[ItemResult] | None) -> Quality:
    theirs = {one.id: one.value for one in others or () if one.family == "perplexity" and one.value}
    names = sorted(values.keys() & theirs.keys())
    if not names:
        return mine
    found = paired_ratio([values[name] for name in names], [theirs[name] for name in names])
    if not math.isfinite(found.high):
        return msgspec.structs.replace(mine, difference=found.estimate)
    return msgspec.structs.replace(
        mine, difference=found.estimate, difference_low=found.low, difference_high=found.high
    )


def _geometric(values: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(one) for one in values) / len(values))
