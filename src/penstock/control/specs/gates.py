"""The part of an environment's spec that says what a version must show before it runs there."""

from typing import Annotated

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from penstock.core.errors import BadRequest
from penstock.core.references import NAME, parse_reference
from penstock.registry.gates import GatePolicy

_Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=96)]
_Models = Annotated[list[_Name], Field(min_length=1, max_length=1000)]
_Days = Annotated[float, Field(gt=0, le=3660)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class SuiteGateSpec(_Part):
    """A suite that a version must answer no worse than what runs now."""

    suite: str = Field(
        pattern=f"^{NAME.pattern}(@sha256:[0-9a-f]{{64}})?$",
        max_length=168,
        description="Its name: the newest of that name; or NAME@sha256:...",
    )
    models: _Models | None = Field(default=None, description="Models that it is for; left out: all.")
    margin: float = Field(
        default=0.02, ge=0, lt=1, description="How much lower the share of right answers may be: 0.02 is 2 points."
    )
    slice_margin: float = Field(default=0.1, ge=0, lt=1, description="The same within each slice.")
    measure_margin: float = Field(
        default=0.1, ge=0, le=100, description="How much higher perplexity and latency may be: 0.1 is 10 %."
    )
    confidence: float = Field(default=0.95, ge=0.5, le=0.9999, description="Of the two-sided intervals.")
    at_least: float | None = Field(
        default=None, ge=0, le=1, description="What the lower end of the share's own interval must reach."
    )
    slices: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=[], max_length=16, description="Slices that are compared too: language, group, topic."
    )
    chance: float = Field(
        default=0.001, gt=0, le=0.5, description="Below it canaries' ranks among random secrets are taken for memory."
    )
    seed: int = Field(default=1, ge=0, lt=2**32, description="Of the answers and of the canaries' candidates.")
    judge: str | None = Field(
        default=None, max_length=300, description="NAME:LABEL or NAME@sha256:... of the version that judges."
    )
    valid_days: _Days = Field(default=30.0, description="How long an evaluation counts.")

    @field_validator("judge")
    @classmethod
    def _names_one_version(cls, judge: str | None) -> str | None:
        # Aliases are moved by people who push: they would choose their own judge.
        try:
            moves = judge is not None and parse_reference(judge).alias is not None
        except BadRequest as error:
            raise ValueError(error.message) from None
        if moves:
            raise ValueError("a judge is named by its label or digest: an alias moves")
        return judge


class SmokeGateSpec(_Part):
    """The engine loads the build and answers."""

    prompts: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(
        default=["Hello"], min_length=1, max_length=32, description="What it is asked; each answer must have some text."
    )
    valid_days: _Days = Field(default=30.0, description="How long the test counts.")


class SignatureGateSpec(_Part):
    """Somebody has signed the version."""

    signers: list[_Name] = Field(default=[], max_length=64, description="One of these; left out: any signer.")


class ApprovalGateSpec(_Part):
    """People have approved it."""

    count: int = Field(default=1, ge=1, le=10, description="How many.")
    by_other: bool = Field(default=True, description="Whoever pushed the version does not count.")
    valid_days: _Days = Field(default=7.0, description="How long an approval counts.")


class GatesSpec(_Part):
    """What a version must show before it runs in an environment."""

    models: _Models | None = Field(default=None, description="Models that this is asked of; left out: all.")
    scan: bool = Field(default=False, description="No pickle, sound safetensors headers, and a licence that is told.")
    signature: SignatureGateSpec | None = None
    smoke: SmokeGateSpec | None = None
    card: bool = Field(default=False, description="The model card says all that it should.")
    suites: list[SuiteGateSpec] = Field(default=[], max_length=32)
    approval: ApprovalGateSpec | None = None

    def policy(self) -> GatePolicy:
        """The same as the rules read it."""
        return msgspec.convert(self.model_dump(), GatePolicy)
