"""The reference page has every metric, as the code defines it, and every field of a spec."""

from pathlib import Path

from penstock.experiments.declared import Covariate, MetricSpec, Prior, Stratify
from penstock.experiments.design import ArmSpec, Design, GuardrailSpec, PlanSpec, Primary
from penstock.experiments.metrics import GUARDRAILS, METRICS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "experiments.md"


def test_every_metric_is_there_as_defined() -> None:
    text = PAGE.read_text()
    for one in METRICS.values():
        better = "more" if one.direction == "up" else "less"
        line = f"| `{one.name}` | {one.type} | {better} | {one.unit} | {one.family} | {one.definition} |"
        assert line in text, line


def test_every_field_and_guardrail_is_there() -> None:
    text = PAGE.read_text()
    for path, struct in (
        ("", Design),
        ("arms[].", ArmSpec),
        ("primary.", Primary),
        ("guardrails[].", GuardrailSpec),
        ("plan.", PlanSpec),
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
