"""The part of an environment's spec that says what alerts may do to what is deployed there."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock.core.references import NAME

_Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=96)]


class AutoRollbackSpec(BaseModel):
    """What alerts may do to what is deployed in an environment."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    alerts: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default=[
            "PenstockWorseThanBefore",
            "PenstockOutputDrift",
            "PenstockAvailabilityFastBurn",
            "PenstockLatencyFastBurn",
        ],
        min_length=1,
        max_length=100,
        description="Names of the alerts that act.",
    )
    action: Literal["rollback", "hold", "none"] = Field(
        default="rollback",
        description="Go back to the state before and block the version; only block it; or only note what would be done.",
    )
    young_s: float = Field(
        default=86400.0, gt=0, le=366 * 86400, description="A revision that has been live for longer is left alone."
    )
    cool_down_s: float = Field(
        default=3600.0, ge=0, le=366 * 86400, description="After it acted on a model, it leaves it alone for so long."
    )
    models: list[_Name] | None = Field(default=None, min_length=1, max_length=1000, description="Left out: all.")
