"""What decides an experiment, what must not get worse meanwhile, and when it may end."""

from typing import Literal

import msgspec

Inference = Literal["always_valid", "group_sequential", "fixed"]


class Primary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metric that decides, and the smallest difference worth seeing, in its unit."""

    metric: str
    minimum_effect: float


class GuardrailSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What must not get worse. `margin` 0.1 accepts 10 % more bad events."""

    metric: str
    margin: float = 0.0


class PlanSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When it may end. Units of time are seconds, of size units an arm."""

    alpha: float = 0.05
    guardrail_alpha: float = 0.01
    power: float = 0.8
    baseline: float | None = None  # the control's value of a share, as far as known
    deviation: float | None = None  # standard deviation of one unit's value, for metrics that are no share
    units: int | None = None  # planned units an arm; None: worked out from the above
    inference: Inference = "always_valid"
    looks: int = 5  # of group_sequential: evenly over the planned units
    discovery_rate: float = 0.05  # of what is called a finding over all metrics, the share that may be false
    steps: tuple[float, ...] = ()  # of a canary: the treatment's share, rising
    step_s: float = 60.0  # how long a step lasts at least
    step_units: int = 100  # how many units of the treatment a step sees at least
    lapse_s: float = 30.0  # after how long without its evaluator a canary falls back to the control
