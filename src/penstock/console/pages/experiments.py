"""Experiments: the list, one experiment with its verdict and its estimates over time, and what may be done with it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from penstock.console import figures
from penstock.console.charts import Chart, Line, drawing, finite
from penstock.console.client import at
from penstock.console.live import live
from penstock.console.pages.experiment_deeds import deeds
from penstock.console.pages.experiment_tables import change_of, contenders, forecasts, judged_by, ranking, votes
from penstock.console.shapes_evaluators import EvaluatorsTold
from penstock.console.shapes_experiments import Experiment, Experiments, Judged, Look, Looks, WholeExperiment
from penstock.console.visit import Visit
from penstock.core.errors import NotFound
from penstock.experiments.arms import ArmSpec
from penstock.experiments.bayes import Belief
from penstock.experiments.metrics import Metric
from penstock.experiments.progress import Progress
from penstock.experiments.words import value_in_words

FRAGMENTS = ("verdict", "results")
_MOST_POINTS = 300
# What an action does, as its confirm page says it: the question, the consequence, the button, whether it is risky.
_ACTIONS = {
    "start": ("Start {}?", "Its route's traffic is split among the arms as planned.", "Start", False),
    "pause": ("Pause {}?", "All traffic goes to the control until it is started again.", "Pause", False),
    "stop": (
        "Stop {} for good?",
        "The route goes back to its own targets, a canary's traffic to the control. A stopped experiment cannot be started again.",
        "Stop",
        True,
    ),
    "kill": (
        "Kill {}?",
        "It ends at once, and all of its traffic is on the control until it is archived.",
        "Kill",
        True,
    ),
    "archive": ("Archive {}?", "It is no longer listed among the others. Its results are kept.", "Archive", False),
}
_UNITS = {"share": "points", "s": "s", "USD": "usd"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment in a list."""

    name: str
    state: str
    words: str
    tone: str
    route: str
    hypothesis: str


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one treatment in words and numbers with units, and its interval's place on a bar of 1000."""

    name: str
    metric: str
    definition: str
    arm: str
    primary: bool
    value: str
    control_value: str
    change: str
    interval: str
    n: str
    state: str
    place: tuple[float, float, float, float] | None  # lower, estimate, upper, zero
    finding: bool = False
    belief: str = ""


def headline(experiment: Experiment) -> tuple[str, str]:
    """The verdict in a few words, and its tone (good, bad, on, or none)."""
    verdict = experiment.verdict
    others = [arm for arm in experiment.arms if arm != experiment.control]
    arm = verdict.arm or (others[0] if len(others) == 1 else "one of the treatments")
    if experiment.state == "draft":
        return "Not started.", ""
    said = {
        "better": (f"{arm[:1].upper()}{arm[1:]} is better.", "good"),
        "worse": (f"{arm[:1].upper()}{arm[1:]} is worse.", "bad"),
        "no_difference": ("There is no difference worth having.", "on"),
        "inconclusive": ("All planned looks are over: it could not be told.", "on"),
        "blocked": ("No result can be trusted.", "bad"),
    }
    open_ = ("Ended without a verdict.", "") if experiment.decision is not None else ("It is too early to tell.", "on")
    return said.get(verdict.state, open_)


def _row(experiment: Experiment) -> Row:
    words, tone = headline(experiment)
    return Row(
        name=experiment.name,
        state=experiment.state,
        words=" ".join((words, *experiment.verdict.reasons[:1])) if experiment.state != "draft" else words,
        tone=tone,
        route=experiment.route,
        hypothesis=experiment.hypothesis,
    )


async def running(visit: Visit) -> list[Row]:
    """The experiments that run now, for the overview."""
    found = await visit.api.get("/experiments", Experiments, state="running")
    return [_row(one) for one in found.experiments]


async def listing(visit: Visit) -> Response:
    """All experiments."""
    found = await visit.api.get("/experiments", Experiments)
    return visit.page("experiments.html", experiments=[_row(one) for one in found.experiments])


async def show(visit: Visit) -> Response:
    """One experiment."""
    return visit.page("experiment.html", fragments=FRAGMENTS, **await read_page(visit))


async def live_experiment(visit: Visit) -> Response:
    """Its regions, again and again."""

    async def read() -> Mapping[str, str]:
        values = await read_page(visit)
        return {name: visit.render(f"experiment/{name}.html", **values) for name in FRAGMENTS}

    return await live(visit, read)


async def read_page(visit: Visit) -> dict[str, Any]:
    """All that the pages of one experiment show, of the metric that the address names, else of the primary one.

    Raises:
        NotFound: if there is no such experiment, or it has no such metric.
    """
    name, chosen = visit.path("name"), visit.query("metric")
    wanted = {"metric": chosen} if chosen else {}
    experiment, looks, scored = await asyncio.gather(
        visit.api.get(at("experiments", name), WholeExperiment),
        visit.api.get(at("experiments", name, "points"), Looks, **wanted),
        visit.api.get(at("experiments", name, "evaluators"), EvaluatorsTold),
    )
    catalogue = experiment.spec.catalogue
    if chosen and chosen not in catalogue:
        raise NotFound(f"The experiment {name} has no metric {chosen!r}.")
    shown = catalogue[chosen] if chosen else experiment.spec.primary_metric
    words, tone = headline(experiment)
    verdict = experiment.verdict
    traffic = {one.arm: one for one in verdict.arms}
    planned = experiment.spec.shares()
    shares = experiment.shares or {one.arm: one.share for one in verdict.arms if one.share} or planned
    return {
        "e": experiment,
        "words": words,
        "tone": tone,
        "reasons": verdict.reasons,
        "arms": [
            (arm, described(arm), traffic.get(arm.name), shares.get(arm.name, 0.0)) for arm in experiment.spec.arms
        ],
        "estimates": estimates(verdict, catalogue),
        "contenders": contenders(verdict, experiment.spec.primary_metric),
        "votes": votes(verdict, catalogue),
        "forecasts": forecasts(verdict, catalogue),
        "evaluators": judged_by(scored),
        "asking": [one for one in scored.evaluators if one.calls or one.held],
        "ranking": ranking(verdict, catalogue),
        "plots": list(charts(experiment, looks.points, shown)),
        "shown": shown,
        "chosen": chosen,
        "looks": verdict.looks,
        "progress": [(one, _detectable(experiment.spec.primary_metric, one)) for one in verdict.progress],
        "guardrails": verdict.guardrails,
        "mismatch": verdict.mismatch,
        "planned": experiment.planned,
        "primary": experiment.spec.primary_metric,
        "effect": change_of(experiment.spec.primary_metric, experiment.spec.primary.minimum_effect).lstrip("+"),
        "actions": experiment.actions if may_act(visit, experiment) else (),
        "deeds": await deeds(visit, experiment),
        "may_read": visit.may("content:read"),
    }


def may_act(visit: Visit, experiment: WholeExperiment) -> bool:
    """Whether the visitor may start, pause and end it: a deployment's canary is changed by who may deploy."""
    return visit.may("experiments:write") and (experiment.deployment is None or visit.may("deployments:write"))


def described(arm: ArmSpec) -> str:
    """What an arm varies, in words."""
    parts = [arm.build or f"pool {arm.pool}"]
    parts += [f"{name} {value}" for name, value in arm.params.items()]
    if arm.system is not None:
        parts.append("its own system prompt")
    if arm.policy is not None:
        parts.append(f"policy {arm.policy}")
    if arm.cascade is not None:
        parts.append(f"after {arm.cascade.first}")
    return ", ".join(parts)


def _value(metric: Metric, value: float) -> str:
    return figures.money(value) if metric.unit == "USD" else value_in_words(metric, value)


def _place(lower: float, estimate: float, upper: float) -> tuple[float, float, float, float]:
    """Where the interval and zero lie on a bar of 1000 that shows all of them."""
    low, high = min(lower, 0.0), max(upper, 0.0)
    room = (high - low) * 0.06 or 1.0
    scale = 1000 / (high - low + 2 * room)
    places = [round((value - low + room) * scale, 1) for value in (lower, estimate, upper, 0.0)]
    return places[0], places[1], places[2], places[3]


def _detectable(metric: Metric, progress: Progress) -> str:
    return "" if progress.detectable is None else change_of(metric, progress.detectable).lstrip("+")


def _belief(metric: Metric, belief: Belief | None) -> str:
    if belief is None:
        return ""
    return f"{figures.percent(belief.chance_better)} likely better, {change_of(metric, belief.lower)} to {change_of(metric, belief.upper)}"


def estimates(verdict: Judged, catalogue: Mapping[str, Metric]) -> list[Estimate]:
    """All comparisons, the primary ones first."""
    found = []
    for one in verdict.comparisons:
        metric = catalogue[one.metric]
        place = None
        interval = figures.NONE
        if one.estimate is not None and one.lower is not None and one.upper is not None:
            interval = f"{change_of(metric, one.lower)} to {change_of(metric, one.upper)}"
            place = _place(one.lower, one.estimate, one.upper)
        found.append(
            Estimate(
                name=one.metric,
                metric=one.title,
                definition=metric.definition,
                arm=one.arm,
                primary=one.primary,
                value=figures.NONE if one.value is None else _value(metric, one.value),
                control_value=figures.NONE if one.control_value is None else _value(metric, one.control_value),
                change=figures.NONE if one.estimate is None else change_of(metric, one.estimate),
                interval=interval,
                n=f"{figures.number(one.n)} / {figures.number(one.control_n)}",
                state=one.state.replace("_", " "),
                place=place,
                finding=one.finding,
                belief=_belief(metric, one.belief),
            )
        )
    return found


def charts(experiment: WholeExperiment, looks: tuple[Look, ...], metric: Metric) -> list[Chart]:
    """The estimates of `metric` over time, a chart for each treatment."""
    found = []
    at_looks = experiment.spec.planned_looks > 0 and metric.name == experiment.spec.primary.metric
    for arm in experiment.spec.treatments:
        mine = sorted(
            (one for one in looks if one.arm == arm and one.metric == metric.name and one.estimate is not None),
            key=lambda look: look.at,
        )[-_MOST_POINTS:]
        line = Line(
            name=f"{arm} minus {experiment.spec.incumbent}",
            values=finite(look.estimate for look in mine),
            low=finite(look.lower for look in mine),
            high=finite(look.upper for look in mine),
        )
        found.append(
            Chart(
                id=f"c-{arm}",
                title=f"{metric.name.replace('_', ' ').capitalize()}: {arm} minus {experiment.spec.incumbent}",
                note=f"with the {figures.percent(1 - experiment.spec.plan.alpha)} "
                f"{'interval of the last planned look' if at_looks else 'confidence sequence'}",
                data=drawing([look.at for look in mine], (line,), _UNITS.get(metric.unit, "count"), zero=True),
                headings=("Time", "Difference", "Lower", "Upper", "Units"),
                rows=tuple(
                    (
                        figures.when(look.at),
                        *(
                            figures.NONE if value is None else change_of(metric, value)
                            for value in (look.estimate, look.lower, look.upper)
                        ),
                        figures.number(look.n),
                    )
                    for look in reversed(mine)
                ),
            )
        )
    return found


async def confirm(visit: Visit) -> Response:
    """Ask before an experiment is started, paused, stopped or archived."""
    visit.must("experiments:write")
    name, action = visit.path("name"), visit.path("action")
    if action not in _ACTIONS:
        raise NotFound(f"An experiment knows no {action!r}.")
    experiment = await visit.api.get(at("experiments", name), Experiment)
    question, consequence, button, risky = _ACTIONS[action]
    return visit.page(
        "experiment_action.html",
        e=experiment,
        action=action,
        question=question.format(name),
        consequence=consequence,
        button=button,
        risky=risky,
    )


async def act(visit: Visit) -> Response:
    """Do it."""
    await visit.form()
    name, action = visit.path("name"), visit.path("action")
    if action not in _ACTIONS:
        raise NotFound(f"An experiment knows no {action!r}.")
    await visit.api.post(at("experiments", name, action))
    return visit.to(at("experiments", name), action)
