"""Who takes part in an experiment, as its author declares it: targeting, mutual exclusion, a held-out share, and what keeps its arm."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest, PenstockError
from penstock.core.references import check_name
from penstock.core.snapshot import Audience, Slice, Unit

MOST_TENANTS = 1000
MOST_CONDITIONS = 20

Sticky = Literal["", "unit", "conversation"]
Ranges = tuple[tuple[float, float], ...]


class TargetingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Only requests that meet all of it take part: of one of these tenants, with these header fields, with this metadata in the body."""

    tenants: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}


class NamespaceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Experiments that share a name and no part of its range have no unit in common. GrowthBook's namespace, with its hash."""

    name: str
    range: tuple[float, float]


class HoldoutSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This share of units takes part in no experiment that names the same holdout."""

    name: str
    share: float


def audience_of(spec: TargetingSpec | None) -> Audience | None:
    """Whom an experiment is for, as gateways ask it: headers in lower case; None: everybody."""
    if spec is None:
        return None
    headers = {name.lower(): value for name, value in spec.headers.items()}
    return Audience(tenants=spec.tenants or None, headers=headers, metadata=spec.metadata)


def namespace_of(spec: NamespaceSpec | None) -> Slice | None:
    """The stretch of a namespace that the experiment has, from `low` up to `high` in [0, 1); None: it is in none."""
    return None if spec is None else Slice(name=spec.name, low=spec.range[0], high=spec.range[1])


def holdout_of(spec: HoldoutSpec | None) -> Slice | None:
    """The stretch of units that are held out, from 0 up to their share; None: nobody is."""
    return None if spec is None else Slice(name=spec.name, high=spec.share)


def overlap(one: NamespaceSpec | None, other: NamespaceSpec | None) -> bool:
    """Whether two experiments say that they exclude one another, and do not."""
    if one is None or other is None or one.name != other.name:
        return False
    return max(one.range[0], other.range[0]) < min(one.range[1], other.range[1])


def check_population(
    *,
    targeting: TargetingSpec | None,
    namespace: NamespaceSpec | None,
    holdout: HoldoutSpec | None,
    sticky: Sticky,
    unit: Unit,
    moves: bool,
) -> None:
    """Refuse what contradicts itself; `moves`: the shares change while the experiment runs.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if targeting is not None:
        _check_targeting(targeting)
    for path, one in (("namespace", namespace), ("holdout", holdout)):
        if one is None:
            continue
        try:
            check_name(one.name)
        except BadRequest as error:
            raise _refuse(error.message, f"{path}.name") from None
        if unit == "request":
            raise _refuse(f"A request comes once: a {path} needs users, sessions or keys as units.", path)
    if sticky and not moves:
        raise _refuse("Shares change in bandits and canaries alone: elsewhere every unit keeps its arm.", "sticky")
    if sticky and unit == "request":
        raise _refuse("A request comes once: use users, sessions or keys as units.", "sticky")
    if namespace is not None:
        low, high = namespace.range
        if not 0 <= low < high <= 1:
            raise _refuse(f"The range is {low} to {high}: it must rise, within 0 and 1.", "namespace.range")
    if holdout is not None and not 0 < holdout.share < 1:
        raise _refuse(f"share is {holdout.share}: it must be between 0 and 1.", "holdout.share")


def check_holdout(holdout: HoldoutSpec | None, seed: str) -> None:
    """Refuse a holdout that is hashed as the arms are, with their `seed`: it would take all of its units from the first arm.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if holdout is not None and holdout.name == seed:
        raise _refuse(
            f"The arms are drawn with the seed {seed!r} too: call the holdout otherwise, or give the experiment a seed.",
            "holdout.name",
        )


def _check_targeting(spec: TargetingSpec) -> None:
    if not (spec.tenants or spec.headers or spec.metadata):
        raise _refuse("Name tenants, headers or metadata; without any of them leave it out.", "targeting")
    if len(spec.tenants) > MOST_TENANTS or len(set(spec.tenants)) < len(spec.tenants):
        raise _refuse(f"Name up to {MOST_TENANTS} different tenants.", "targeting.tenants")
    for index, tenant in enumerate(spec.tenants):
        try:
            check_name(tenant)
        except BadRequest as error:
            raise _refuse(error.message, f"targeting.tenants[{index}]") from None
    for name, conditions in (("headers", spec.headers), ("metadata", spec.metadata)):
        if len(conditions) > MOST_CONDITIONS:
            raise _refuse(
                f"There are {len(conditions)} conditions: use at most {MOST_CONDITIONS}.", f"targeting.{name}"
            )
        for key in conditions:
            if not 0 < len(key) <= 256:
                raise _refuse("A name has 1 to 256 characters.", f"targeting.{name}")
    for key in spec.headers:
        if key.lower() in {"authorization", "cookie", "proxy-authorization"}:
            raise _refuse(f"{key} is a secret of its sender: nothing is decided by it.", f"targeting.headers.{key}")


def check_ranges(arms: Sequence[tuple[str, Ranges]]) -> None:
    """Refuse bucket ranges of arms that overlap or lie outside of [0, 1].

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    taken: list[tuple[float, float, str]] = []
    for index, (name, ranges) in enumerate(arms):
        if not ranges:
            raise _refuse(f"The arm {name!r} has no ranges, and others have: give all of them some.", f"arms[{index}]")
        for low, high in ranges:
            if not (math.isfinite(low) and math.isfinite(high)) or not 0 <= low < high <= 1:
                raise _refuse(f"The range is {low} to {high}: it must rise, within 0 and 1.", f"arms[{index}].ranges")
            for start, end, other in taken:
                if max(low, start) < min(high, end):
                    raise _refuse(f"{low} to {high} is {other}'s already.", f"arms[{index}].ranges")
            taken.append((low, high, name))


def widths(ranges: Mapping[str, Ranges]) -> dict[str, float]:
    """How much of all that is covered each arm has."""
    wide = {name: sum(high - low for low, high in mine) for name, mine in ranges.items()}
    total = sum(wide.values())
    return {name: width / total for name, width in wide.items()}


def _refuse(sentence: str, param: str) -> PenstockError:
    return BadRequest(sentence, param=param)
