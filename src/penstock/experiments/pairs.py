"""Two answers to one request: what is measured of both, and what their differences say.

Of a shadow and of an interleaved experiment every measurement comes in pairs, so a difference has none of the spread between requests. Under
a metric's name stands the treatment's value, under `NAME@` the control's, and under `NAME~` the difference of each pair.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from penstock.core.exchange import Exchange, Observation, Outcome, Usage
from penstock.experiments.compare import MIN_UNITS, Difference
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design
from penstock.experiments.metrics import FAILURES, Metric, first_token_ns, latency_ns
from penstock.experiments.similarity import MILLION
from penstock.experiments.statistics import Moments, estimate

CONTROL, DIFFERENCE = "@", "~"


class Side(NamedTuple):
    """One of the two answers."""

    arm: str
    outcome: Outcome
    finish: str
    latency_ns: int
    first_ns: int
    usage: Usage
    cost_nanousd: int


def sides(exchange: Exchange) -> tuple[Side, Side]:
    """Treatment and control of a record of two answers.

    Raises:
        ValueError: if it is none.
    """
    pair = exchange.pair
    if pair is None:
        raise ValueError(f"{exchange.id} has one answer")
    own = Side(
        exchange.arm,
        exchange.outcome,
        exchange.finish,
        latency_ns(exchange),
        first_token_ns(exchange) if exchange.stream else 0,
        exchange.usage,
        exchange.cost_nanousd,
    )
    waited = pair.latency_ns if exchange.stream and pair.outcome != "ok" else 0
    other = Side(
        pair.arm,
        pair.outcome,
        pair.finish,
        pair.latency_ns,
        pair.first_ns or waited,
        pair.usage,
        pair.cost_nanousd,
    )
    return (own, other) if pair.of else (other, own)


def treatment_of(exchange: Exchange) -> str:
    """The arm that answered beside the control; the record's own arm if it has one answer."""
    return exchange.arm if exchange.pair is None or exchange.pair.of else exchange.pair.arm


def measures_of(exchange: Exchange) -> Iterator[tuple[str, int, int]]:
    """What a record of two answers adds: (metric, numerator, denominator)."""
    treatment, control = sides(exchange)
    for name, one, other in _both(treatment, control, apart=exchange.pair is not None and bool(exchange.pair.of)):
        yield name, one, 1
        yield name + CONTROL, other, 1
        yield name + DIFFERENCE, one - other, 1
    if exchange.pair is not None and exchange.pair.similarity >= 0:
        yield "similarity", exchange.pair.similarity, 1
        yield "same_answer", int(exchange.pair.similarity == MILLION), 1


def _both(treatment: Side, control: Side, *, apart: bool) -> Iterator[tuple[str, int, int]]:
    yield "cost", max(0, treatment.cost_nanousd), max(0, control.cost_nanousd)
    refused = [side.outcome == "refused" for side in (treatment, control)]
    stopped = [side.finish == "content_filter" for side in (treatment, control)]
    yield "refusal", int(refused[0] or stopped[0]), int(refused[1] or stopped[1])
    if any(refused):
        return
    yield "error_rate", int(treatment.outcome in FAILURES), int(control.outcome in FAILURES)
    finished = [side.outcome == "ok" for side in (treatment, control)]
    yield "completion", int(finished[0]), int(finished[1])
    if all(finished):
        yield "completion_tokens", max(0, treatment.usage.completion), max(0, control.usage.completion)
    if not apart:  # who waits for both answers is not measured
        return
    if all(finished) or (treatment.latency_ns > 0 and control.latency_ns > 0):
        yield "latency", treatment.latency_ns, control.latency_ns
    if treatment.first_ns > 0 and control.first_ns > 0:
        yield "time_to_first_token", treatment.first_ns, control.first_ns


def judged_of(exchange: Exchange) -> str:
    """Whom the judge preferred: `won` (the treatment), `lost`, `tie`, or "" if it was not asked."""
    pair = exchange.pair
    if pair is None or not pair.judged:
        return ""
    if pair.judged == "tie":
        return "tie"
    return "won" if (pair.judged == "first") == bool(pair.of) else "lost"


def vote_on(exchange: Exchange, observation: Observation) -> str:
    """What a preference says of an interleaved answer: `won` (the treatment's choice), `lost`, `tie`; "" if there is no such choice."""
    pair = exchange.pair
    if pair is None or not pair.shown:
        return ""
    if observation.name == "tie":
        return "tie"
    index = int(observation.value) if observation.value is not None else -1
    if not 0 <= index < len(pair.shown):
        return ""
    return "won" if pair.shown[index] == pair.arm else "lost"


def vote_of_judge(design: Design, observation: Observation) -> str:
    """What an evaluator says of a pair: `won` (the treatment's answer is better), `lost`, `tie`; "" if it says nothing that counts here."""
    if not observation.evaluator or observation.name != "judged" or observation.value is None:
        return ""
    plan = design.shadow or design.interleaved
    if plan is not None and plan.evaluator and plan.evaluator != observation.evaluator:
        return ""
    if observation.value == 0.5:
        return "tie"
    return "won" if observation.value > 0.5 else "lost"


def paired_difference(_design: object, statistics: Statistics, metric: Metric, arm: str) -> Difference | None:
    """The mean difference within pairs; None below `MIN_UNITS` units.

    A share's variance is at least that of one more pair that differs either way (after Agresti and Min 2005, "Simple improved confidence
    intervals for comparing matched proportions", Statistics in Medicine 24), so that two arms that have not failed yet are not taken for
    two that cannot differ.
    """
    moments = total_of(statistics, arm, metric.name + DIFFERENCE)
    found = estimate(moments, metric.scale)
    if found is None or found.units < MIN_UNITS:
        return None
    variance = found.variance
    if metric.type == "proportion":
        count = moments.bottom + 2
        mean = moments.top / count
        variance = max(variance, ((moments.top_top + 2) / count - mean * mean) / count)
    return Difference(found.value, variance, found.units) if variance > 0 else None


def paired_values(statistics: Statistics, metric: Metric, arm: str) -> tuple[float | None, float | None, int]:
    """The treatment's value and the control's, and the units that they rest on."""
    found = [total_of(statistics, arm, metric.name + mark) for mark in ("", CONTROL)]
    values = [one.top / one.bottom * metric.scale if one.bottom else None for one in found]
    return values[0], values[1], found[0].units


def votes(statistics: Statistics, arm: str, name: str) -> tuple[int, int, int]:
    """Units whose vote was for the treatment, for the control, and for neither."""
    cast = total_of(statistics, arm, name)
    ties = total_of(statistics, arm, f"{name}=").top
    return cast.top, cast.bottom - cast.top, ties


def total_of(statistics: Statistics, arm: str, name: str) -> Moments:
    """Over all epochs; an epoch changes nothing within a pair."""
    total = Moments()
    for epoch in sorted(statistics.shares):
        total = total.merged(statistics.moments.get((epoch, arm, name), Moments()))
    return total


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What an A/B test of `units` units an arm would say of one metric, by what the pairs say.

    `estimate`, `lower`, `upper`: the difference it would report, and where that would be with 95 %. `better`, `worse`: the chance that it
    would call the treatment so.
    """

    metric: str
    arm: str
    units: int
    estimate: float
    lower: float
    upper: float
    better: float
    worse: float


def forecast(statistics: Statistics, metric: Metric, arm: str, *, units: int, critical: float) -> Forecast | None:
    """The forecast for one metric; None while its difference is not known.

    The A/B test's own error comes from the spread of both arms' values, which the pairs show too; to it comes that of the pairs.

    Args:
        statistics: of the pairs.
        metric: what is measured of both.
        arm: the treatment.
        units: of each arm of the A/B test.
        critical: how many standard errors from 0 its interval at the planned size is wide.
    """
    found = paired_difference(None, statistics, metric, arm)
    arms = [
        estimate(total_of(statistics, arm, metric.name + mark), metric.scale, proportion=metric.type == "proportion")
        for mark in ("", CONTROL)
    ]
    if found is None or arms[0] is None or arms[1] is None:
        return None
    error = math.sqrt(sum(one.variance * one.units for one in arms if one is not None) / units)
    spread = math.sqrt(found.variance + error * error)
    up = metric.direction == "up"
    above, below = (_beyond(side * found.estimate, critical * error, spread) for side in (1, -1))
    return Forecast(
        metric=metric.name,
        arm=arm,
        units=units,
        estimate=found.estimate,
        lower=found.estimate - 1.959964 * spread,
        upper=found.estimate + 1.959964 * spread,
        better=above if up else below,
        worse=below if up else above,
    )


def _beyond(middle: float, limit: float, spread: float) -> float:
    """The chance of a normal value around `middle` to be above `limit`."""
    if spread <= 0:
        return float(middle > limit)
    return 0.5 * math.erfc((limit - middle) / spread / math.sqrt(2))
