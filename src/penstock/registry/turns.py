"""In which order evaluations are worked off: whoever has had least of the examiner lately is next. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

TURN_S = 3600.0  # how long what somebody had counts


class Waiting(NamedTuple):
    """An evaluation that waits."""

    id: str
    by: str  # who asked for it


def next_in_turn(waiting: Sequence[Waiting], had: Mapping[str, int]) -> str | None:
    """The id of the evaluation that is next; None: none waits.

    Args:
        waiting: eldest first.
        had: items of what was begun for each caller within the last `TURN_S` seconds. Whoever has had least is next, and of those who are even the one who
            has waited longest; each caller's own go in the order in which they were asked for.
    """
    return min(waiting, key=lambda one: had.get(one.by, 0)).id if waiting else None
