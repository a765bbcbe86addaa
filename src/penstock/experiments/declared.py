"""What an author may declare beside the built-in metrics, before the start: metrics of their own events, and how things are analysed."""

import math
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest, PenstockError
from penstock.core.references import check_name
from penstock.experiments.metrics import LARGEST, METRICS, MICRO, Family, Metric

MOST_METRICS = 20
MOST_STRATA = 20
MOST_LOOKS = 50


class MetricSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A metric of events that applications tell with `POST /v1/events`, by their name, or of an evaluator's scores.

    `proportion`: the share of units with such an event; `mean`: the sum of a unit's values, over all units; `ratio`: the sum of
    values over the number of events; `quantile`: of the events' values. Of scores, `proportion` is the share of at least one half, `mean`
    and `ratio` the mean score.
    """

    name: str
    type: Literal["mean", "proportion", "ratio", "quantile"]
    event: str = ""
    evaluator: str = ""
    direction: Literal["up", "down"] = "up"
    unit: str = ""
    family: Family = "business"
    quantile: float | None = None
    after_s: float = 0.0  # only events so long after the unit's first request count
    within_s: float | None = None  # and not later than that


class Stratify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Compare within each of these values of a request's field, and put the comparisons together; all others are one stratum."""

    by: Literal["tenant", "key", "operation", "stream"]
    values: tuple[str, ...]


class Covariate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """CUPED: take out of the primary metric what the unit's own past explains."""

    days: float = 14.0  # before the start
    metric: str = ""  # of the past; empty: the primary one


class Prior(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is believed of the difference beforehand, in the metric's unit: normal. No deviation: nothing is."""

    mean: float = 0.0
    deviation: float | None = None


def as_metric(spec: MetricSpec) -> Metric:
    """The metric that `spec` declares."""
    if spec.evaluator:
        return _scored(spec)
    per: Literal["unit", "event"] = "unit" if spec.type in {"proportion", "mean"} else "event"
    named = f"`{spec.event}` event"
    window = "" if not spec.after_s and spec.within_s is None else _window(spec)
    said = {
        "proportion": f"Of all units, the share with at least one {named}{window}.",
        "mean": f"The sum of the values of a unit's {named}s{window}, over all units.",
        "ratio": f"The mean value of a {named}{window}.",
        "quantile": f"The value that {100 * (spec.quantile or 0):g} % of {named}s{window} stay under.",
    }[spec.type]
    return Metric(
        name=spec.name,
        type=spec.type,
        direction=spec.direction,
        unit=spec.unit or ("share" if spec.type == "proportion" else "units"),
        family=spec.family,
        definition=said,
        scale=1.0 if spec.type == "proportion" else 1 / MICRO,
        quantile=spec.quantile,
        event=spec.event,
        per=per,
        after_s=spec.after_s,
        within_s=spec.within_s,
    )


def _scored(spec: MetricSpec) -> Metric:
    who = f"that the evaluator {spec.evaluator} scored"
    window = "" if not spec.after_s and spec.within_s is None else f", given{_window(spec)}"
    mean = f"The mean score of the answers {who}{window}."
    said = {
        "proportion": f"Of the answers {who}{window}, the share with a score of at least one half.",
        "mean": mean,
        "ratio": mean,
        "quantile": f"The score that {100 * (spec.quantile or 0):g} % of the answers {who} stay under{window}.",
    }[spec.type]
    return Metric(
        name=spec.name,
        type=spec.type,
        direction=spec.direction,
        unit=spec.unit or ("share" if spec.type == "proportion" else "points"),
        family=spec.family,
        definition=said,
        scale=1.0 if spec.type == "proportion" else 1 / MICRO,
        quantile=spec.quantile,
        evaluator=spec.evaluator,
        per="event",
        after_s=spec.after_s,
        within_s=spec.within_s,
    )


def _window(spec: MetricSpec) -> str:
    if spec.within_s is None:
        return f" at least {spec.after_s:g} s after its first request"
    return f" {spec.after_s:g} to {spec.within_s:g} s after its first request"


def check_metrics(specs: tuple[MetricSpec, ...]) -> None:
    """Refuse declared metrics that contradict themselves or each other.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if len(specs) > MOST_METRICS:
        raise _refuse(f"There are {len(specs)} metrics: declare at most {MOST_METRICS}.", "metrics")
    seen: set[str] = set()
    for index, spec in enumerate(specs):
        path = f"metrics[{index}]"
        try:
            check_name(spec.name)
        except BadRequest as error:
            raise _refuse(error.message, f"{path}.name") from None
        if len(spec.name) > 64:
            raise _refuse("The name of a metric has at most 64 characters.", f"{path}.name")
        if spec.name in METRICS or spec.name in seen:
            raise _refuse(f"There is a metric {spec.name!r} already.", f"{path}.name")
        seen.add(spec.name)
        if spec.evaluator:
            if spec.event:
                raise _refuse("Say either which events are meant or which evaluator.", f"{path}.evaluator")
            try:
                check_name(spec.evaluator)
            except BadRequest as error:
                raise _refuse(error.message, f"{path}.evaluator") from None
        elif not 0 < len(spec.event) <= 128:
            raise _refuse("Say which events are meant, in 1 to 128 characters, or which evaluator.", f"{path}.event")
        if (spec.type == "quantile") != (spec.quantile is not None):
            raise _refuse("A quantile, and nothing else, needs `quantile`, such as 0.95.", f"{path}.quantile")
        if spec.quantile is not None and not 0 < spec.quantile < 1:
            raise _refuse(f"The quantile is {spec.quantile}: it must be between 0 and 1.", f"{path}.quantile")
        if not 0 <= spec.after_s < math.inf:
            raise _refuse(f"after_s is {spec.after_s}: it must not be negative.", f"{path}.after_s")
        if spec.within_s is not None and not spec.after_s < spec.within_s < math.inf:
            raise _refuse(f"within_s is {spec.within_s}: it must be above after_s.", f"{path}.within_s")


def check_limits(limits: dict[str, tuple[float, float]], catalogue: dict[str, Metric]) -> None:
    """Refuse limits of winsorising that are none.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    for name, (low, high) in limits.items():
        path = f"winsorise.{name}"
        if name not in catalogue:
            raise _refuse(f"{name!r} is no metric of this experiment.", path)
        if catalogue[name].type in {"proportion", "quantile"}:
            raise _refuse(f"{name!r} is a {catalogue[name].type}: there is nothing to cut off.", path)
        if not (-LARGEST <= low < high <= LARGEST):
            raise _refuse(f"The limits are {low} and {high}: they must rise, within a million of 0.", path)


def check_stratify(stratify: Stratify) -> None:
    """Refuse strata that are none.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    values = stratify.values
    if not 0 < len(values) <= MOST_STRATA or len(set(values)) < len(values) or not all(values):
        raise _refuse(f"Name 1 to {MOST_STRATA} different values.", "stratify.values")
    known = {"operation": {"chat", "completions", "embeddings", "responses"}, "stream": {"true", "false"}}
    for index, value in enumerate(values):
        if stratify.by in known and value not in known[stratify.by]:
            raise _refuse(f"{value!r} is no {stratify.by}.", f"stratify.values[{index}]")


def check_prior(prior: Prior) -> None:
    """Refuse what is no normal distribution.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if not math.isfinite(prior.mean):
        raise _refuse("The prior's mean must be a number.", "bayes.mean")
    if prior.deviation is not None and not 0 < prior.deviation < math.inf:
        raise _refuse("The prior's deviation must be above 0.", "bayes.deviation")


def _refuse(sentence: str, param: str) -> PenstockError:
    return BadRequest(sentence, param=param)
