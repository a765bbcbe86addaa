"""A version's life: committed, then perhaps deprecated or blocked. Its files never change; only what may be done with it does."""

from typing import Literal

from penstock.core.errors import Conflict

VersionState = Literal["committed", "deprecated", "blocked"]

_MOVES: dict[VersionState, frozenset[VersionState]] = {
    "committed": frozenset({"deprecated", "blocked"}),
    "deprecated": frozenset({"committed", "blocked"}),
    "blocked": frozenset({"committed"}),
}


def moved(now: VersionState, to: VersionState, reference: str) -> VersionState:
    """`to`, if a version may go there from `now`; going nowhere is fine.

    Raises:
        Conflict: if it may not.
    """
    if to != now and to not in _MOVES[now]:
        raise Conflict(f"{reference} is {now} and cannot become {to}.", code="bad_state")
    return to


def may_deploy(state: VersionState) -> bool:
    """Whether a version in this state may be promoted. A deprecated one still may: rolling back to it must stay possible."""
    return state != "blocked"
