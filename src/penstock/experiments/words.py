"""Numbers of an experiment as plain sentences."""

import math

from penstock.experiments.metrics import Metric


def value_in_words(metric: Metric, value: float) -> str:
    """A value with its unit: `61.0 %`, `340 ms`, `12.1 tokens/s`."""
    if metric.unit == "share":
        return f"{value * 100:.1f} %"
    if metric.unit == "s" and abs(value) < 1:
        return f"{value * 1000:.0f} ms" if abs(value) >= 0.01 or value == 0 else f"{value * 1000:.2g} ms"
    return f"{value:.3g} {metric.unit}"


def change_in_words(metric: Metric, change: float) -> str:
    """A difference with its sign: `+21.1 points`, `-40 ms`."""
    if metric.unit == "share":
        return f"{change * 100:+.1f} points"
    text = value_in_words(metric, abs(change))
    return f"{'-' if change < 0 else '+'}{text}"


def difference_in_words(
    metric: Metric,
    *,
    arm: str,
    control: str,
    counts: tuple[int, int],
    values: tuple[float, float] | None,
    interval: tuple[float, float, float] | None,
    state: str,
    minimum_effect: float,
    confidence: float,
    needed: int,
    look: int = 0,
) -> str:
    """One comparison as a sentence.

    Args:
        metric: what is compared.
        arm: the treatment.
        control: the incumbent.
        counts: units of the treatment and of the control.
        values: of both, if there are any.
        interval: estimate, lower and upper end, if there is one.
        state: of the comparison.
        minimum_effect: the smallest effect worth seeing.
        confidence: of the interval.
        needed: units an arm before there is an interval.
        look: the number of the planned look that the numbers are of; 0: they hold at every look.
    """
    name = metric.name.replace("_", " ")
    if values is None or interval is None:
        return (
            f"Too little is known of {name} yet: {arm} has {counts[0]} units and {control} has {counts[1]}, "
            f"and each needs at least {needed} and some variation."
        )
    middle, lower, upper = interval
    verdict = {
        "better": f"{arm} is better",
        "worse": f"{arm} is worse",
        "no_difference": f"there is no difference of {change_in_words(metric, minimum_effect).lstrip('+')} or more",
        "open": "that can still go either way",
    }[state]
    return (
        f"{name.capitalize()} is {value_in_words(metric, values[0])} with {arm} ({counts[0]} units) and "
        f"{value_in_words(metric, values[1])} with {control} ({counts[1]} units): {change_in_words(metric, middle)}, "
        f"between {change_in_words(metric, lower)} and {change_in_words(metric, upper)} at {confidence * 100:g} % confidence "
        f"{f'at planned look {look}' if look else 'at every look'}; {verdict}."
    )


def guardrail_in_words(metric: Metric, arm: str, evidence: float, limit: float) -> str:
    """A tripped guardrail as a sentence."""
    return (
        f"The guardrail on {metric.name.replace('_', ' ')} tripped: that {arm} does no harm has become "
        f"{_times(evidence)} times less likely, and the limit is {_times(limit)}."
    )


def mismatch_in_words(epoch: int, p_value: float) -> str:
    """A sample-ratio mismatch as a sentence."""
    return (
        f"The arms' numbers of units in epoch {epoch} do not fit the shares that were set (p = {p_value:.2g}): "
        "assignment or recording is broken, and no result can be trusted."
    )


def looks_in_words(taken: int, planned: int, units: int) -> str:
    """How many of the planned looks have been taken, as a sentence."""
    if taken >= planned:
        return (
            "All planned looks have been taken: this is its last word."
            if planned > 1
            else "The planned look has been taken: this is its last word."
        )
    if planned == 1:
        return f"It is judged once, when the arms have {units} units each with data, on average."
    return f"{taken} of {planned} planned looks have been taken; the next is at {round(units * (taken + 1) / planned)} units an arm with data, on average."


def need_in_words(arm: str, units: int, needed: int, metric: Metric, effect: float) -> str:
    """What is still needed, as a sentence."""
    return (
        f"By how much it has varied until now, about {needed - units} more units of {arm} with data are needed to see a difference of "
        f"{change_in_words(metric, effect).lstrip('+')}."
    )


def findings_in_words(found: list[tuple[Metric, str, float]], family: int, rate: float) -> str:
    """What other metrics show, as a sentence; each is a metric, a treatment and its difference."""
    said = [
        f"{metric.name.replace('_', ' ')} of {arm} ({change_in_words(metric, change)})" for metric, arm, change in found
    ]
    return f"Over all {family} comparisons, with at most {rate * 100:g} % of findings false: {', '.join(said)}."


def _times(log_e: float) -> str:
    return f"{math.exp(min(log_e, 40)):,.0f}"
