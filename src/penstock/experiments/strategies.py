"""What a bandit, a shadow and an interleaved experiment declare beside the rest of their design."""

import math
from collections.abc import Collection
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest, PenstockError
from penstock.core.references import check_name

MOST_CONTEXTS = 50
MOST_BANDIT_ARMS = 50
ELSE = "*"  # the context of all tenants that are not named


class ContextSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a bandit learns apart: each tenant named here (and all others together), or prompts by their length.

    `edges` are estimated tokens (four bytes each), rising: [64, 256] makes three contexts.
    """

    by: Literal["tenant", "length"]
    tenants: tuple[str, ...] = ()
    edges: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The contexts, as records name them."""
        if self.by == "tenant":
            return (*self.tenants, ELSE)
        lows = (0, *self.edges)
        return (*(f"{low}-{high - 1}" for low, high in zip(lows, self.edges, strict=False)), f"{lows[-1]}-")

    @property
    def features(self) -> tuple[tuple[float, ...], ...]:
        """What an arm's mean is linear in, by context: a constant and who it is, or a constant and the logarithm of the length."""
        if self.by == "tenant":
            count = len(self.tenants) + 1
            return tuple((1.0, *(float(one == other) for other in range(count))) for one in range(count))
        lows = (self.edges[0] / 2, *self.edges)
        logs = [math.log2(low * 1.5) for low in lows]
        middle = sum(logs) / len(logs)
        spread = math.sqrt(sum((one - middle) ** 2 for one in logs) / len(logs))
        return tuple((1.0, (one - middle) / spread) for one in logs)


class BanditSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How shares follow what is known. `floor`: the share that every arm keeps. `leader`: of top_two, the leader's part.

    An epoch lasts `plan.step_s` and sees `plan.step_units` units at least, and `growth` times those of all epochs before it.
    """

    algorithm: Literal["thompson", "top_two"] = "thompson"
    leader: float = 0.5
    floor: float = 0.0
    growth: float = 0.1
    context: ContextSpec | None = None


class ShadowSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which share of requests is copied, and how much of it a gateway worker does at a time."""

    share: float = 0.1
    queue: int = 64  # copies that wait; one more is dropped, and counted
    in_flight: int = 4
    deadline_s: float = 60.0  # of one copy, from the end of the user's request
    judge: str | None = None  # a pool whose model says which of the two answers is better, asked in both orders
    evaluator: str = ""  # the one whose comparisons count as `judged`; "": any
    budget_usd: float | None = None  # what all copies may cost; then it ends
    usd_per_hour: float | None = None  # the share falls so that they cost no more than this


class InterleavedSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which share of requests two models answer, and how both answers are shown.

    `both`: as two choices of one reply, in random order. `draft`: as one answer, whose list items or paragraphs are drafted from both
    by turns.
    """

    share: float = 0.1
    show: Literal["both", "draft"] = "both"
    patience_s: float = 5.0  # how long the second answer is waited for once the first is there
    evaluator: str = ""  # the one whose comparisons count as `judged`; "": any
    budget_usd: float | None = None
    usd_per_hour: float | None = None


def _refuse(sentence: str, param: str) -> PenstockError:
    return BadRequest(sentence, param=param)


def _between(value: float, low: float, high: float, name: str, param: str) -> None:
    if not low <= value <= high:
        raise _refuse(f"{name} is {value:g}: use {low:g} to {high:g}.", param)


def check_bandit(spec: BanditSpec, *, arms: Collection[str], unit: str) -> None:
    """Refuse what contradicts itself.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if len(arms) > MOST_BANDIT_ARMS:
        raise _refuse(f"There are {len(arms)} arms: a bandit has at most {MOST_BANDIT_ARMS}.", "arms")
    _between(spec.leader, 0.0, 1.0, "leader", "bandit.leader")
    _between(spec.floor, 0.0, 1 / len(arms), "floor", "bandit.floor")
    _between(spec.growth, 0.01, 1.0, "growth", "bandit.growth")
    context = spec.context
    if context is None:
        return
    if context.by == "tenant":
        if not context.tenants or context.edges or len(set(context.tenants)) < len(context.tenants):
            raise _refuse("Name the tenants that have a context of their own, each once.", "bandit.context.tenants")
        for index, name in enumerate(context.tenants):
            try:
                check_name(name)
            except BadRequest as error:
                raise _refuse(error.message, f"bandit.context.tenants[{index}]") from None
    else:
        edges = context.edges
        if not edges or context.tenants or list(edges) != sorted(set(edges)) or edges[0] < 2 or edges[-1] > 1_000_000:
            raise _refuse("Contexts by length need rising edges in tokens, such as [64, 256].", "bandit.context.edges")
        if unit != "request":
            raise _refuse("A unit's requests have different lengths: contexts by length need `unit: request`.", "unit")
    if len(context.names) > MOST_CONTEXTS:
        raise _refuse(f"There are {len(context.names)} contexts: use at most {MOST_CONTEXTS}.", "bandit.context")


def check_shadow(spec: ShadowSpec) -> None:
    """Refuse what contradicts itself.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    _between(spec.queue, 1, 4096, "queue", "shadow.queue")
    _between(spec.in_flight, 1, 256, "in_flight", "shadow.in_flight")
    _between(spec.deadline_s, 0.1, 3600.0, "deadline_s", "shadow.deadline_s")
    _check_dose(spec, "shadow")


def check_interleaved(spec: InterleavedSpec) -> None:
    """Refuse what contradicts itself.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    _between(spec.patience_s, 0.0, 600.0, "patience_s", "interleaved.patience_s")
    _check_dose(spec, "interleaved")


def _check_dose(spec: ShadowSpec | InterleavedSpec, path: str) -> None:
    if not 0 < spec.share <= 1:
        raise _refuse(f"share is {spec.share}: it must be above 0 and at most 1.", f"{path}.share")
    for name in ("budget_usd", "usd_per_hour"):
        value: float | None = getattr(spec, name)
        if value is not None and not 0 < value < math.inf:
            raise _refuse(f"{name} is {value}: it must be above 0.", f"{path}.{name}")
