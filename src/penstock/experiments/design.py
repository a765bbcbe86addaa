"""What an experiment is, as its author registers it: the `spec` of `kind: Experiment`. Nothing of it can be edited after the start."""

import math
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest, PenstockError
from penstock.core.exchange import Exchange
from penstock.core.references import check_name
from penstock.core.snapshot import Unit
from penstock.experiments.arms import ArmSpec, check_arms
from penstock.experiments.bandit import floored
from penstock.experiments.declared import (
    MOST_LOOKS,
    Covariate,
    MetricSpec,
    Prior,
    Stratify,
    as_metric,
    check_limits,
    check_metrics,
    check_prior,
    check_stratify,
)
from penstock.experiments.group_sequential import inflation
from penstock.experiments.hooks import HooksSpec, check_hooks
from penstock.experiments.metrics import GUARDRAILS, METRICS, Metric, metric
from penstock.experiments.paired_metrics import PAIRED, VOTES
from penstock.experiments.plan import GuardrailSpec, PlanSpec, Primary
from penstock.experiments.population import (
    HoldoutSpec,
    NamespaceSpec,
    Sticky,
    TargetingSpec,
    check_population,
    check_ranges,
    widths,
)
from penstock.experiments.sample_size import Plan, plan_units, plan_votes
from penstock.experiments.strategies import (
    BanditSpec,
    InterleavedSpec,
    ShadowSpec,
    check_bandit,
    check_interleaved,
    check_shadow,
)

Strategy = Literal["ab", "bandit", "shadow", "canary", "interleaved"]
BUILT: tuple[Strategy, ...] = ("ab", "canary", "bandit", "shadow", "interleaved")

_MANY = 1 << 40  # units: there the floor is the declared one

# What a person may do in which state, and where it leads.
TRANSITIONS: dict[str, dict[str, str]] = {
    "draft": {"start": "running", "archive": "archived"},
    "running": {"pause": "paused", "stop": "decided", "kill": "decided"},
    "paused": {"start": "running", "stop": "decided", "kill": "decided"},
    "decided": {"archive": "archived"},
    "archived": {},
}


class Design(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The spec of an experiment. `control` names the incumbent arm; empty: the arm called control, else the first."""

    strategy: Strategy
    route: str
    arms: tuple[ArmSpec, ...]
    primary: Primary
    unit: Unit = "user"
    hypothesis: str = ""
    control: str = ""
    guardrails: tuple[GuardrailSpec, ...] = ()
    metrics: tuple[MetricSpec, ...] = ()
    winsorise: dict[
        str, tuple[float, float]
    ] = {}  # by metric, in its unit: lower values count as the first, higher ones as the second
    stratify: Stratify | None = None
    covariate: Covariate | None = None
    bayes: Prior | None = None
    bandit: BanditSpec | None = None
    shadow: ShadowSpec | None = None
    interleaved: InterleavedSpec | None = None
    plan: PlanSpec = PlanSpec()
    targeting: TargetingSpec | None = None
    namespace: NamespaceSpec | None = None
    holdout: HoldoutSpec | None = None
    coverage: float = 1.0  # the share of units that takes part
    sticky: Sticky = ""  # what keeps its arm when shares change
    hooks: HooksSpec | None = None  # what its verdict does to the deployment
    seed: str = ""  # of the hash; empty: the experiment's name
    hash_version: Literal[1, 2] = 2

    @property
    def incumbent(self) -> str:
        """The arm that all others are compared with."""
        if self.control:
            return self.control
        names = [arm.name for arm in self.arms]
        return "control" if "control" in names else names[0]

    @property
    def treatments(self) -> tuple[str, ...]:
        """The other arms."""
        return tuple(arm.name for arm in self.arms if arm.name != self.incumbent)

    @property
    def catalogue(self) -> dict[str, Metric]:
        """The built-in metrics and the declared ones; where two arms answer the same request, those of pairs."""
        if self.paired:
            return PAIRED
        return METRICS | {one.name: as_metric(one) for one in self.metrics} if self.metrics else METRICS

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Those whose scores it names, in its metrics or as the judge of its pairs."""
        plan = self.shadow or self.interleaved
        named = [one.evaluator for one in self.metrics] + ([plan.evaluator] if plan is not None else [])
        return tuple(dict.fromkeys(one for one in named if one))

    @property
    def primary_metric(self) -> Metric:
        """What decides."""
        found = self.catalogue.get(self.primary.metric)
        return found if found is not None else metric(self.primary.metric, "primary.metric")

    @property
    def paired(self) -> bool:
        """Whether two arms answer the same request: the control everybody, a treatment some requests beside it."""
        return self.strategy in {"shadow", "interleaved"}

    @property
    def layered(self) -> bool:
        """Whether there are sums by stratum, with a covariate or without."""
        return self.stratify is not None or self.covariate is not None or bool(self.contexts)

    @property
    def contexts(self) -> tuple[str, ...]:
        """Of a bandit with contexts: their names. They are its strata."""
        context = self.bandit.context if self.bandit is not None else None
        return context.names if context is not None else ()

    @property
    def strata(self) -> tuple[str, ...]:
        """All of them; the one without a name holds whatever was not named."""
        if self.contexts:
            return self.contexts
        return ("", *self.stratify.values) if self.stratify is not None else ("",)

    def stratum_of(self, exchange: Exchange) -> str:
        """Where a unit belongs whose first exchange this is."""
        if self.contexts:
            return exchange.context
        if self.stratify is None:
            return ""
        value = getattr(exchange, self.stratify.by)
        name = ("false", "true")[value] if isinstance(value, bool) else value
        return name if name in self.stratify.values else ""

    @property
    def planned_looks(self) -> int:
        """How many looks decide; 0: every one."""
        return {"always_valid": 0, "group_sequential": self.plan.looks, "fixed": 1}[self.plan.inference]

    def planned_units(self) -> int:
        """Units an arm for the kind of inference that was chosen."""
        planned = self.planned()
        if not self.planned_looks or self.plan.units is not None:
            return planned.always_valid
        return math.ceil(planned.fixed * inflation(self.planned_looks, self.plan.alpha, self.plan.power))

    def planned(self) -> Plan:
        """Units an arm, for one look and for watching."""
        if self.plan.units is not None:
            return Plan(self.plan.units, self.plan.units)
        if self.primary.metric in VOTES:
            return plan_votes(self.primary.minimum_effect, self.plan.alpha / len(self.treatments), self.plan.power)
        return plan_units(
            proportion=self.primary_metric.type == "proportion",
            baseline=self.plan.baseline,
            deviation=self.plan.deviation,
            effect=self.primary.minimum_effect,
            alpha=self.plan.alpha,
            power=self.plan.power,
        )

    def shares(self) -> dict[str, float]:
        """The share of each arm at the start."""
        if self.strategy == "canary":
            first = self.plan.steps[0]
            return {arm.name: 1 - first if arm.name == self.incumbent else first for arm in self.arms}
        if self.paired:
            total = sum(arm.weight for arm in self.arms if arm.name != self.incumbent)
            return {arm.name: arm.weight / total for arm in self.arms if arm.name != self.incumbent}
        if any(arm.ranges for arm in self.arms):
            return widths({arm.name: arm.ranges for arm in self.arms})
        total = sum(arm.weight for arm in self.arms)
        if self.strategy == "bandit":
            floor = self.bandit.floor if self.bandit is not None else 0.0
            whole = floored([arm.weight / total for arm in self.arms], _MANY, floor)
            return {arm.name: share for arm, share in zip(self.arms, whole, strict=True)}
        return {arm.name: arm.weight / total for arm in self.arms}


def parse_design(spec: object) -> Design:
    """The design in `spec` (the decoded YAML or JSON), whole and consistent.

    Raises:
        BadRequest: the first thing that is wrong, with its path in `param`.
    """
    try:
        design = msgspec.convert(spec, Design)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$")
        where = path.rstrip("`").lstrip(".")
        raise BadRequest(
            f"The experiment's spec{': ' + where if where else ''}: {said}.", param=where or "spec"
        ) from None
    _check_arms(design)
    _check_plan(design)
    _check_strategy(design)
    return design


def _refuse(sentence: str, param: str) -> PenstockError:
    return BadRequest(sentence, param=param)


def _check_arms(design: Design) -> None:
    if design.strategy not in BUILT:
        raise _refuse(f"The strategy {design.strategy!r} is not built yet: use {' or '.join(BUILT)}.", "strategy")
    check_name(design.route, "route")
    check_arms(design.arms)
    ranged = [arm for arm in design.arms if arm.ranges]
    if ranged:
        check_ranges([(arm.name, arm.ranges) for arm in design.arms])
    if (ranged or design.coverage != 1) and design.strategy != "ab":
        raise _refuse("Only an A/B test has ranges and a coverage: other shares change while it runs.", "coverage")
    if not 0 < design.coverage <= 1 or (ranged and design.coverage != 1):
        raise _refuse(f"coverage is {design.coverage}: use above 0 to 1, and 1 where arms have ranges.", "coverage")
    names = [arm.name for arm in design.arms]
    if design.control and design.control not in names:
        raise _refuse(f"The control {design.control!r} is none of the arms.", "control")


def _check_plan(design: Design) -> None:
    plan = design.plan
    effect = design.primary.minimum_effect
    _ = design.primary_metric
    if not 0 < effect < math.inf:
        raise _refuse(
            f"minimum_effect is {effect}: say the smallest difference worth seeing, above 0.", "primary.minimum_effect"
        )
    for name in ("alpha", "guardrail_alpha", "power", "discovery_rate"):
        value: float = getattr(plan, name)
        if not 0 < value < 1:
            raise _refuse(f"{name} is {value}: it must be between 0 and 1.", f"plan.{name}")
    if plan.units is not None and plan.units < 2:
        raise _refuse(f"units is {plan.units}: an arm needs at least 2.", "plan.units")
    for name, least in (("step_s", 0.0), ("lapse_s", 1.0), ("step_units", 1)):
        value = getattr(plan, name)
        if not least <= value < math.inf:
            raise _refuse(f"{name} is {value}: it must be at least {least:g}.", f"plan.{name}")
    _check_analysis(design)
    _check_steps(design)
    _check_guardrails(design)
    design.planned()  # refuses what has no sample size


def _check_analysis(design: Design) -> None:
    check_metrics(design.metrics)
    check_limits(design.winsorise, design.catalogue)
    if design.stratify is not None:
        check_stratify(design.stratify)
    if design.bayes is not None:
        check_prior(design.bayes)
    quantile = design.primary_metric.type == "quantile"
    if design.planned_looks:
        if design.strategy != "ab":
            raise _refuse(
                "Only an A/B test can have planned looks: other shares change while it runs.", "plan.inference"
            )
        if quantile:
            raise _refuse("A quantile cannot be judged at planned looks: use always_valid.", "plan.inference")
    if not 1 <= design.plan.looks <= MOST_LOOKS:
        raise _refuse(f"looks is {design.plan.looks}: use 1 to {MOST_LOOKS}.", "plan.looks")
    if design.covariate is not None:
        _check_covariate(design, design.covariate, quantile=quantile)


def _check_covariate(design: Design, covariate: Covariate, *, quantile: bool) -> None:
    if not 0 < covariate.days <= 365:
        raise _refuse(f"days is {covariate.days}: use up to 365.", "covariate.days")
    if design.unit not in {"user", "session"}:
        raise _refuse("Only users and sessions have a past: a covariate needs one of them as the unit.", "covariate")
    if quantile:
        raise _refuse("A quantile has no covariate.", "covariate")
    past = covariate.metric or design.primary.metric
    if past not in METRICS or METRICS[past].type == "quantile" or METRICS[past].event:
        known = ", ".join(one.name for one in METRICS.values() if one.type != "quantile" and not one.event)
        raise _refuse(f"The past knows no {past!r}: use one of {known}.", "covariate.metric")


def _check_strategy(design: Design) -> None:
    if design.hooks is not None:
        check_hooks(design.hooks, design.arms, strategy=design.strategy)
    check_population(
        targeting=design.targeting,
        namespace=design.namespace,
        holdout=design.holdout,
        sticky=design.sticky,
        unit=design.unit,
        moves=design.strategy in {"bandit", "canary"},
    )
    for name in ("bandit", "shadow", "interleaved"):
        if getattr(design, name) is not None and design.strategy != name:
            raise _refuse(f"Only the strategy {name} has a part {name!r}.", name)
    if design.strategy == "bandit":
        if design.primary_metric.quantile is not None:
            raise _refuse("A bandit follows means, shares and ratios, not quantiles.", "primary.metric")
        if design.hash_version != 2:
            raise _refuse("A bandit's shares need the finer hash: use hash_version 2.", "hash_version")
        if design.stratify is not None or design.covariate is not None:
            raise _refuse("A bandit has contexts instead of strata, and no covariate.", "stratify")
        check_bandit(design.bandit or BanditSpec(), arms=[arm.name for arm in design.arms], unit=design.unit)
    elif design.paired:
        _check_pairs(design)


def _check_pairs(design: Design) -> None:
    if design.shadow is not None:
        check_shadow(design.shadow)
    if design.interleaved is not None:
        check_interleaved(design.interleaved)
    for name in ("guardrails", "metrics", "winsorise", "stratify", "covariate", "bayes"):
        if getattr(design, name):
            raise _refuse(f"Where two arms answer the same request there are no {name}: pairs are compared.", name)
    if sum(arm.weight for arm in design.arms if arm.name != design.incumbent) <= 0:
        raise _refuse("All treatments' weights are 0: none would get a request.", "arms")
    primary = design.primary.metric
    judged = bool(design.evaluators) or (design.shadow is not None and design.shadow.judge is not None)
    possible = [
        name for name in PAIRED if name not in {"similarity", "same_answer", *VOTES, "latency", "time_to_first_token"}
    ]
    possible += ["preference"] if design.strategy == "interleaved" else ["latency", "time_to_first_token"]
    possible += ["judged"] if judged else []
    if primary not in possible:
        raise _refuse(f"{primary!r} cannot decide this: use one of {', '.join(sorted(possible))}.", "primary.metric")


def _check_steps(design: Design) -> None:
    steps = design.plan.steps
    if design.strategy != "canary":
        if steps:
            raise _refuse("Only a canary has steps.", "plan.steps")
        return
    if len(design.arms) != 2:
        raise _refuse("A canary has two arms: the control and the treatment.", "arms")
    if not steps or any(not 0 < step <= 1 for step in steps) or list(steps) != sorted(set(steps)):
        raise _refuse("A canary needs steps: rising shares of the treatment, such as [0.1, 0.5, 1.0].", "plan.steps")
    if steps[0] == 1:
        raise _refuse("A canary's first step must leave some traffic to the control.", "plan.steps")


def _check_guardrails(design: Design) -> None:
    seen: set[str] = set()
    for index, guardrail in enumerate(design.guardrails):
        path = f"guardrails[{index}].metric"
        metric(guardrail.metric, path)
        if guardrail.metric not in GUARDRAILS:
            raise _refuse(f"{guardrail.metric!r} cannot be a guardrail: use one of {', '.join(GUARDRAILS)}.", path)
        if guardrail.metric in seen:
            raise _refuse(f"There are two guardrails on {guardrail.metric!r}.", path)
        if not 0 <= guardrail.margin <= 10:
            raise _refuse(f"The margin is {guardrail.margin}: use 0 to 10.", f"guardrails[{index}].margin")
        seen.add(guardrail.metric)
