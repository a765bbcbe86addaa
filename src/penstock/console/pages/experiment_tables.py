"""What only some strategies have to tell on an experiment's page: who leads, votes, versions on one scale, forecasts."""

from collections.abc import Mapping
from typing import Any

from penstock.console import figures
from penstock.console.shapes_evaluators import CoverageRow, EvaluatorsTold, EvaluatorTold
from penstock.console.shapes_experiments import Judged
from penstock.experiments.metrics import Metric
from penstock.experiments.scoring import TELLING
from penstock.experiments.words import change_in_words


def change_of(metric: Metric, change: float) -> str:
    """A difference of `metric` in words."""
    if metric.unit == "USD":
        return ("\u2212" if change < 0 else "+") + figures.money(abs(change))
    return change_in_words(metric, change).replace("-", "\u2212")


def contenders(verdict: Judged, metric: Metric) -> list[dict[str, Any]]:
    """A bandit's arms by context, the likeliest first."""
    return [
        {
            "arm": one.arm,
            "context": one.context,
            "chance": one.chance,
            "share": one.share,
            "once": _range(metric, one.lower, one.upper),
        }
        for one in sorted(verdict.contenders, key=lambda one: (one.context, -one.chance))
    ]


def votes(verdict: Judged, catalogue: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """Who was preferred, and how strong that makes the treatment."""
    found = []
    for one in verdict.votes:
        ends = (
            ("\u2212\u221e" if one.strength_lower is None else f"{one.strength_lower:+.2f}"),
            ("\u221e" if one.strength_upper is None else f"{one.strength_upper:+.2f}"),
        )
        found.append(
            {
                "title": catalogue[one.metric].name.replace("_", " "),
                "arm": one.arm,
                "won": one.won,
                "lost": one.lost,
                "ties": one.ties,
                "share": one.share,
                "interval": f"{figures.percent(one.lower)} to {figures.percent(one.upper)}",
                "strength": figures.NONE if one.strength is None else f"{one.strength:+.2f}".replace("-", "\u2212"),
                "strengths": f"{ends[0]} to {ends[1]}".replace("-", "\u2212"),
                "gauge": max(0.0, min(1.0, one.evidence / one.limit)),
            }
        )
    return found


def ranking(verdict: Judged, catalogue: Mapping[str, Metric]) -> list[dict[str, str]]:
    """Several versions by their strength."""
    return [
        {
            "arm": one.arm,
            "title": catalogue[one.metric].name.replace("_", " "),
            "strength": _strength(one.strength),
            "interval": figures.NONE
            if one.lower is None or one.upper is None
            else f"{_strength(one.lower)} to {_strength(one.upper)}",
            "beats": ", ".join(one.stronger_than) or figures.NONE,
        }
        for one in verdict.ranking
    ]


def _strength(value: float | None) -> str:
    return figures.NONE if value is None else f"{value:+.2f}".replace("-", "\u2212")


def judged_by(scored: EvaluatorsTold) -> list[tuple[EvaluatorTold, CoverageRow | None, str]]:
    """Each evaluator by arm, with why the others of its draw were not judged; none of the arms if it has drawn nothing."""
    found: list[tuple[EvaluatorTold, CoverageRow | None, str]] = []
    for one in scored.evaluators:
        for row in one.coverage:
            left = {result: count for result, count in row.results.items() if count and result not in TELLING}
            words = ", ".join(f"{figures.number(count)} {result.replace('_', ' ')}" for result, count in left.items())
            found.append((one, row, words))
        if not one.coverage:
            found.append((one, None, ""))
    return found


def forecasts(verdict: Judged, catalogue: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """What an A/B test would say."""
    return [
        {
            "metric": catalogue[one.metric].name.replace("_", " "),
            "arm": one.arm,
            "units": one.units,
            "estimate": change_of(catalogue[one.metric], one.estimate),
            "interval": _range(catalogue[one.metric], one.lower, one.upper),
            "better": one.better,
            "worse": one.worse,
        }
        for one in verdict.forecasts
    ]


def _range(metric: Metric, lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None:
        return figures.NONE
    return f"{change_of(metric, lower)} to {change_of(metric, upper)}"
