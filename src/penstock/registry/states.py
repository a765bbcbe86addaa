"""The states of a version and the moves between them."""

from typing import Literal

from penstock.core.errors import Conflict

VersionState = Literal["committed", "archived", "blocked", "deleted"]

# From a state: the states that it may move to, and what the move means.
MOVES: dict[VersionState, frozenset[VersionState]] = {
    "committed": frozenset({"archived", "blocked", "deleted"}),
    "archived": frozenset({"committed", "deleted"}),
    "blocked": frozenset({"committed", "deleted"}),
    "deleted": frozenset(),  # its row stays, so that its label is never used again; its bytes go
}


def move(reference: str, state: VersionState, to: VersionState) -> VersionState:
    """`to`, if a version in `state` may become it.

    Raises:
        Conflict: if not.
    """
    if to not in MOVES[state]:
        raise Conflict(f"{reference} is {state} and cannot become {to}.")
    return to


def check_deployable(reference: str, state: VersionState) -> None:
    """Refuse what must not be promoted.

    Raises:
        Conflict: if the version is archived, blocked or deleted.
    """
    if state != "committed":
        raise Conflict(
            f"{reference} is {state} and cannot be deployed.", hint="Clear it first, or choose another version."
        )
