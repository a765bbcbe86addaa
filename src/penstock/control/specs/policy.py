"""The spec of a Policy: what is kept of requests, and which content rules apply."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from penstock.control.specs.resources import Name, Spec
from penstock.core.snapshot import Detectable


class RuleSpec(Spec):
    """One content rule."""

    name: Name
    detect: Literal[Detectable, "words", "pattern"] = "words"
    words: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(default=[], max_length=10000)
    patterns: list[Annotated[str, Field(min_length=1, max_length=1024)]] = Field(default=[], max_length=1000)
    on: list[Literal["input", "output"]] = Field(default=["input", "output"], min_length=1, max_length=2)
    do: Literal["block", "mask", "flag"] = "block"

    @model_validator(mode="after")
    def _says_what(self) -> "RuleSpec":
        if self.detect == "words" and not self.words:
            raise ValueError("a rule that detects words needs 'words'")
        if self.detect == "pattern" and not self.patterns:
            raise ValueError("a rule that detects a pattern needs 'patterns'")
        return self


class PolicySpec(Spec):
    """What is kept of a request, and which content rules apply."""

    capture: Literal["none", "masked", "full"] = Field(
        default="none", description="What is kept of content, encrypted: nothing, with personal data masked, all of it."
    )
    capture_share: float = Field(default=1.0, ge=0, le=1, description="Of the requests, drawn one by one.")
    capture_mask: list[Detectable] = Field(
        default=["payment_card", "email", "phone", "iban", "secret"],
        max_length=6,
        description="What `masked` replaces, as the content rules of the same names do; `number`: six digits and more.",
    )
    capture_chars: int = Field(
        default=65536, ge=256, le=1 << 20, description="Most characters of one request; the oldest turns go first."
    )
    audit: Literal["buffered", "strict"] = "buffered"
    ledger_down: Literal["open", "closed"] | None = Field(
        default=None,
        description="Limits while their ledger is away: each worker's share of them, or 503; left out: gateway.ledger_down.",
    )
    retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="Days that its tenants' exchanges are kept, in control's index and in the analytical store; left out: as the policy `default` says.",
    )
    rules: list[RuleSpec] = Field(default=[], max_length=1000)
