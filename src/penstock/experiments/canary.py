"""The canary of a deployment as an experiment: from its plan to the design, and its evidence in words."""

import msgspec

from penstock.core.snapshot import Unit
from penstock.experiments.design import Design, parse_design
from penstock.experiments.fold import Statistics
from penstock.experiments.plan import GuardrailSpec
from penstock.experiments.verdict import Verdict

INCUMBENT, CANARY = "incumbent", "canary"  # what the two arms are called

# The margins of times, feedback and rules forgive what two versions may differ by without harm; errors are forgiven nothing.
GUARDRAILS = (
    GuardrailSpec(metric="error_rate"),
    GuardrailSpec(metric="latency_p95", margin=1.0),
    GuardrailSpec(metric="refusal", margin=0.5),
    GuardrailSpec(metric="findings", margin=0.5),
    GuardrailSpec(metric="success", margin=0.25),
)


class CanaryPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version is tried out.

    It takes its next step when `minutes` have passed and `samples` units were answered by it, and gets all of the traffic when the
    confidence sequence of `metric` leaves out that it is worse by more than `margin` (in the metric's unit; 0.02 of a share is 2 points).
    """

    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0)
    minutes: float = 1.0
    samples: int = 50
    unit: Unit = "request"
    metric: str = "error_rate"
    margin: float = 0.02
    guardrails: tuple[GuardrailSpec, ...] = GUARDRAILS
    alpha: float = 0.05
    guardrail_alpha: float = 0.01
    lapse_s: float = 30.0


def canary_design(plan: CanaryPlan, *, route: str, incumbent: str, canary: str) -> Design:
    """The experiment that tries out the version `canary` (NAME:LABEL) against `incumbent` on `route`.

    Raises:
        BadRequest: what is wrong with the plan; `param` is its path in the experiment's spec.
    """
    return parse_design(
        {
            "strategy": "canary",
            "route": route,
            "unit": plan.unit,
            "hypothesis": f"{canary} does no harm where {incumbent} serves.",
            "control": INCUMBENT,
            "arms": [{"name": INCUMBENT, "build": incumbent}, {"name": CANARY, "build": canary}],
            "primary": {"metric": plan.metric, "minimum_effect": plan.margin},
            "guardrails": [msgspec.to_builtins(one) for one in plan.guardrails],
            "plan": {
                "alpha": plan.alpha,
                "guardrail_alpha": plan.guardrail_alpha,
                "steps": list(plan.steps),
                "step_s": plan.minutes * 60,
                "step_units": plan.samples,
                "lapse_s": plan.lapse_s,
            },
        }
    )


def evidence_in_words(design: Design, statistics: Statistics, verdict: Verdict) -> tuple[str, ...]:
    """Of each guardrail that tripped: how many bad events, of how many requests, each arm has had."""
    found = []
    requests = {
        arm.name: sum(statistics.requests(epoch, arm.name) for epoch in statistics.shares) for arm in design.arms
    }
    for gauge in verdict.guardrails:
        guardrail = statistics.guardrails.get(gauge.metric)
        if not gauge.tripped or guardrail is None:
            continue
        counts = ", ".join(
            f"{sum(arms.get(arm.name, 0) for arms in guardrail.bad.values()):,} in {requests[arm.name]:,} requests of "
            f"{(arm.build or arm.name).partition(':')[2] or arm.name}"
            for arm in reversed(design.arms)
        )
        found.append(f"Bad events of {gauge.metric.replace('_', ' ')}: {counts}.")
    return tuple(found)
