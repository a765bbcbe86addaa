"""Designs: what is refused, and that the path of it is told."""

from typing import Any

import msgspec
import pytest

from penstock.core.errors import BadRequest
from penstock.experiments.design import TRANSITIONS, parse_design
from penstock.experiments.metrics import METRICS


def spec(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "strategy": "ab",
        "route": "support-bot",
        "unit": "user",
        "hypothesis": "v1.1.0 answers more questions right",
        "arms": [
            {"name": "control", "build": "support-bot:v1.0.0", "weight": 0.9},
            {"name": "treatment", "build": "support-bot:v1.1.0", "params": {"temperature": 0.2}, "weight": 0.1},
        ],
        "primary": {"metric": "success", "minimum_effect": 0.05},
        "guardrails": [{"metric": "error_rate"}, {"metric": "latency_p95"}],
        "plan": {"alpha": 0.05, "guardrail_alpha": 0.01, "power": 0.8},
    }
    return base | changes


CANARY = {"strategy": "canary", "plan": {"steps": [0.1, 0.25, 0.5, 1.0], "lapse_s": 30}}
ARMS = spec()["arms"]


def test_the_documented_experiment_is_one() -> None:
    design = parse_design(spec(**CANARY))
    assert design.incumbent == "control"
    assert design.treatments == ("treatment",)
    assert design.shares() == pytest.approx({"control": 0.9, "treatment": 0.1})
    assert parse_design(msgspec.to_builtins(design)) == design


def test_planned_size_follows_from_the_plan() -> None:
    planned = parse_design(spec(plan={"baseline": 0.2})).planned()
    assert planned.fixed == 1094
    assert parse_design(spec(plan={"units": 50})).planned() == (50, 50)


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"strategy": "guess"}, "strategy", "guess"),
        ({"unit": "planet"}, "unit", "planet"),
        ({"colour": 1}, "spec", "colour"),
        ({"arms": [{**ARMS[0], "wieght": 1}, ARMS[1]]}, "arms[0]", "wieght"),
        ({"arms": [{**ARMS[0], "weight": "a"}, ARMS[1]]}, "arms[0].weight", "float"),
        ({"arms": [{**ARMS[0], "weight": -1}, ARMS[1]]}, "arms[0].weight", "negative"),
        ({"arms": [ARMS[0]]}, "arms", "at least two"),
        ({"arms": [ARMS[0], ARMS[0]]}, "arms[0].name", "Two arms"),
        ({"arms": [{"name": "control"}, ARMS[1]]}, "arms[0]", "pool or a build"),
        ({"arms": [{**ARMS[0], "pool": "p"}, ARMS[1]]}, "arms[0]", "pool or a build"),
        ({"arms": [{**ARMS[0], "build": "what is this"}, ARMS[1]]}, "arms[0].build", "names no version"),
        ({"arms": [{**ARMS[0], "params": {"model": "x"}}, ARMS[1]]}, "arms[0].params.model", "cannot vary"),
        ({"arms": [{**a, "weight": 0.0} for a in ARMS]}, "arms", "0"),
        ({"control": "nobody"}, "control", "none of the arms"),
        ({"primary": {"metric": "beauty", "minimum_effect": 1}}, "primary.metric", "beauty"),
        ({"primary": {"metric": "success"}}, "primary", "minimum_effect"),
        ({"primary": {"metric": "success", "minimum_effect": 0}}, "primary.minimum_effect", "above 0"),
        ({"guardrails": [{"metric": "error_rat"}]}, "guardrails[0].metric", "error_rat"),
        ({"guardrails": [{"metric": "cost"}]}, "guardrails[0].metric", "cannot be a guardrail"),
        ({"guardrails": [{"metric": "reports"}] * 2}, "guardrails[1].metric", "two guardrails"),
        ({"guardrails": [{"metric": "reports", "margin": -1}]}, "guardrails[0].margin", "margin"),
        ({"plan": {"alpha": 0}}, "plan.alpha", "between 0 and 1"),
        ({"plan": {"power": 1.0}}, "plan.power", "between 0 and 1"),
        ({"plan": {"steps": [0.1]}}, "plan.steps", "Only a canary"),
        ({"plan": {"units": 1}}, "plan.units", "at least 2"),
        ({"strategy": "canary"}, "plan.steps", "needs steps"),
        ({"strategy": "canary", "plan": {"steps": [0.5, 0.1]}}, "plan.steps", "rising"),
        ({"strategy": "canary", "plan": {"steps": [1.0]}}, "plan.steps", "leave some traffic"),
        ({"strategy": "canary", "plan": {"steps": [0.1], "lapse_s": 0}}, "plan.lapse_s", "at least 1"),
        (
            {"strategy": "canary", "plan": {"steps": [0.1]}, "arms": [*ARMS, {**ARMS[1], "name": "b"}]},
            "arms",
            "two arms",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_its_path(changes: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(BadRequest, match="(?i)" + words) as refused:
        parse_design(spec(**changes))
    assert refused.value.param == param


def test_not_even_a_mapping() -> None:
    with pytest.raises(BadRequest):
        parse_design([1, 2])


def test_every_metric_is_described_and_every_state_has_an_end() -> None:
    for one in METRICS.values():
        assert one.definition.endswith(".")
        assert (one.type == "quantile") == (one.quantile is not None)
    for actions in TRANSITIONS.values():
        assert set(actions.values()) <= set(TRANSITIONS)
