"""The plan of canaries, as an environment declares it and as the API takes it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock.core.snapshot import Unit
from penstock.experiments.canary import GUARDRAILS

GuardrailName = Literal[
    "error_rate",
    "latency",
    "latency_p95",
    "time_to_first_token",
    "time_to_first_token_p95",
    "refusal",
    "findings",
    "success",
    "rating",
    "reports",
]


class CanaryGuardrailSpec(BaseModel):
    """What a canary must not make worse."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    metric: GuardrailName
    margin: float = Field(
        default=0.0, ge=0, le=10, description="How many more bad events are accepted: 0.1 is 10 % more."
    )


class CanarySpec(BaseModel):
    """How a new version is tried out before it gets all of the traffic."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    steps: list[float] = Field(
        default=[0.01, 0.05, 0.25, 0.5, 1.0],
        min_length=1,
        max_length=20,
        description="Its shares of the traffic, rising.",
    )
    minutes: float = Field(default=1.0, ge=0, le=100_000, description="What a step lasts at least.")
    samples: int = Field(default=50, ge=1, le=10**9, description="Units that it answers in a step at least.")
    unit: Unit = Field(default="request", description="What stays with a version: user, session, key or request.")
    metric: str = Field(default="error_rate", description="The metric whose confidence sequence decides the promotion.")
    margin: float = Field(
        default=0.02, gt=0, le=1e6, description="How much worse it may be in it, in the metric's unit."
    )
    guardrails: list[CanaryGuardrailSpec] = Field(
        default=[CanaryGuardrailSpec.model_validate({"metric": g.metric, "margin": g.margin}) for g in GUARDRAILS],
        max_length=10,
        description="What undoes it at once.",
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="Chance of promoting what is worse by more than the margin."
    )
    guardrail_alpha: float = Field(
        default=0.01, gt=0, lt=1, description="Chance of undoing a harmless one, over its life and all guardrails."
    )
    lapse_s: float = Field(
        default=30.0, ge=1, le=86_400, description="Seconds after which gateways drop its share if nobody watches."
    )
