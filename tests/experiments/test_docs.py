"""The reference page has every metric, as the code defines it, and every field of a spec."""

import math
import re
from pathlib import Path

import yaml

from penstock.experiments.arms import ArmSpec
from penstock.experiments.declared import Covariate, MetricSpec, Prior, Stratify
from penstock.experiments.design import Design, parse_design
from penstock.experiments.group_sequential import inflation
from penstock.experiments.metrics import GUARDRAILS, METRICS
from penstock.experiments.paired_metrics import PAIRED
from penstock.experiments.plan import GuardrailSpec, PlanSpec, Primary
from penstock.experiments.sample_size import plan_units
from penstock.experiments.strategies import BanditSpec, InterleavedSpec, ShadowSpec

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "experiments.md"


def test_every_metric_is_there_as_defined() -> None:
    text = PAGE.read_text()
    for one in METRICS.values():
        better = "more" if one.direction == "up" else "less"
        line = f"| `{one.name}` | {one.type} | {better} | {one.unit} | {one.family} | {one.definition} |"
        assert line in text, line


def test_every_metric_of_pairs_is_there_as_defined() -> None:
    text = PAGE.read_text()
    for one in PAIRED.values():
        line = f"| `{one.name}` | {one.type} | more | {one.unit} | {one.family} | {one.definition} |"
        assert one.name in METRICS or line in text, line


def test_every_field_and_guardrail_is_there() -> None:
    text = PAGE.read_text()
    for path, struct in (
        ("", Design),
        ("arms[].", ArmSpec),
        ("primary.", Primary),
        ("guardrails[].", GuardrailSpec),
        ("plan.", PlanSpec),
        ("bandit.", BanditSpec),
        ("shadow.", ShadowSpec),
        ("interleaved.", InterleavedSpec),
        ("metrics[].", MetricSpec),
        ("stratify.", Stratify),
        ("covariate.", Covariate),
        ("bayes.", Prior),
    ):
        for field in struct.__struct_fields__:
            parts = {"arms", "primary", "guardrails", "plan", "metrics", "stratify", "covariate", "bayes", "hypothesis"}
            if path or field not in parts:
                assert f"`{path}{field}`" in text, path + field
    for name in GUARDRAILS:
        assert f"`{name}`" in text


GUIDE = PAGE.parents[1] / "experiments.md"


def test_the_guides_document_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(kind: Experiment.*?)```", GUIDE.read_text(), re.DOTALL)
    design = parse_design(yaml.safe_load(block)["spec"])
    assert {one.name for one in design.metrics} == {"revenue", "back_next_day"}
    assert design.layered


def test_the_guides_sizes_are_those_that_are_told() -> None:
    plan = plan_units(proportion=True, baseline=0.2, deviation=None, effect=0.05, alpha=0.05, power=0.8)
    few = math.ceil(plan.fixed * inflation(5, 0.05, 0.8))
    text = GUIDE.read_text()
    for kind, units in (("fixed", plan.fixed), ("group sequential", few), ("always valid", plan.always_valid)):
        assert re.search(rf"^{kind} +{units} +{2 * units}$", text, re.MULTILINE)
