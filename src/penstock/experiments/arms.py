"""What an arm is: a pool or a build, and what it varies of a request's way there; and what is refused of it."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.core.errors import BadRequest, PenstockError
from penstock.core.references import check_name, parse_reference
from penstock.core.snapshot import Cascade
from penstock.experiments.parameters import ALWAYS_KEPT, check_params

MOST_PATTERNS = 100


class CascadeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Ask the pool `first`, and the arm's own only where that one's answer does not convince; thresholds as of a route's cascade."""

    first: str
    min_mean_logprob: float | None = None
    min_token_logprob: float | None = None
    patterns: tuple[str, ...] = ()
    finish: tuple[str, ...] = ("length",)
    hold_tokens: int = 64
    tools: bool = False


class RoutingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an arm's requests find their model."""

    cascade: CascadeSpec | None = None


class ArmSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One arm: a pool or a build, and what it varies."""

    name: str
    pool: str | None = None
    build: str | None = None  # NAME:LABEL or NAME@ALIAS
    params: dict[str, Any] = {}
    system: str | None = None
    policy: str | None = None
    routing: RoutingSpec | None = None
    weight: float = 1.0
    ranges: tuple[tuple[float, float], ...] = ()  # of the buckets in [0, 1), instead of a weight

    @property
    def cascade(self) -> CascadeSpec | None:
        """Its cascade, if it has one."""
        return self.routing.cascade if self.routing is not None else None


def cascade_of(spec: CascadeSpec, first: str, then: str) -> Cascade:
    """As gateways run it, between two pools of the Snapshot."""
    return Cascade(
        first=first,
        then=then,
        min_mean_logprob=spec.min_mean_logprob,
        min_token_logprob=spec.min_token_logprob,
        patterns=spec.patterns,
        finish=spec.finish,
        hold_tokens=spec.hold_tokens,
        tools=spec.tools,
    )


def check_arms(arms: Sequence[ArmSpec]) -> None:
    """Refuse arms that contradict themselves or each other.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    names = [arm.name for arm in arms]
    if len(names) < 2:
        raise _refuse("An experiment compares at least two arms.", "arms")
    for index, arm in enumerate(arms):
        path = f"arms[{index}]"
        check_name(arm.name, f"{path}.name")
        if names.count(arm.name) > 1:
            raise _refuse(f"Two arms are called {arm.name!r}.", f"{path}.name")
        if (arm.pool is None) == (arm.build is None):
            raise _refuse(f"The arm {arm.name!r} needs either a pool or a build.", path)
        if arm.build is not None:
            try:
                parse_reference(arm.build)
            except BadRequest as error:
                raise _refuse(error.message, f"{path}.build") from None
        if not math.isfinite(arm.weight) or arm.weight < 0:
            raise _refuse(
                f"The weight of the arm {arm.name!r} is {arm.weight}: it must not be negative.", f"{path}.weight"
            )
        for field in ALWAYS_KEPT:
            if field in arm.params:
                raise _refuse(f"An arm cannot vary {field!r} of a request.", f"{path}.params.{field}")
        if arm.cascade is not None:
            _check_cascade(arm, arm.cascade, f"{path}.routing.cascade")
    if sum(arm.weight for arm in arms) <= 0:
        raise _refuse("All weights are 0: no arm would get a request.", "arms")


def check_parameters(arms: Sequence[ArmSpec]) -> None:
    """Refuse parameters that engines would refuse request by request: when an experiment is registered, and when it starts.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    for index, arm in enumerate(arms):
        check_params(arm.params, f"arms[{index}].params")


def _check_cascade(arm: ArmSpec, spec: CascadeSpec, path: str) -> None:
    check_name(spec.first, f"{path}.first")
    if spec.first == arm.pool:
        raise _refuse(f"The arm {arm.name!r} would ask {spec.first!r} twice.", f"{path}.first")
    for name in ("min_mean_logprob", "min_token_logprob"):
        value: float | None = getattr(spec, name)
        if value is not None and not -100 <= value <= 0:
            raise _refuse(f"{name} is {value:g}: use -100 to 0.", f"{path}.{name}")
    if not 1 <= spec.hold_tokens <= 4096:
        raise _refuse(f"hold_tokens is {spec.hold_tokens}: use 1 to 4096.", f"{path}.hold_tokens")
    if len(spec.patterns) > MOST_PATTERNS or not all(spec.patterns):
        raise _refuse(f"Give up to {MOST_PATTERNS} patterns, none of them empty.", f"{path}.patterns")
    if spec.min_mean_logprob is None and spec.min_token_logprob is None and not spec.patterns and not spec.finish:
        raise _refuse("Say what does not convince: min_mean_logprob, min_token_logprob, patterns or finish.", path)


def _refuse(sentence: str, param: str) -> PenstockError:
    return BadRequest(sentence, param=param)
