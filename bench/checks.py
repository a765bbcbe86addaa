"""What a line of a bench of checks is: a claim with its seed, its target, and what was measured."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Measured(NamedTuple):
    """A figure as people read it, and whether it meets the target."""

    figure: str
    met: bool


class Check(NamedTuple):
    """One claim. `measure` gets the seed and the part of the full size to run (1.0: all of it; tests run less).

    `slow` checks take minutes at full size and run in processes of their own, as many at a time as there are cores.
    """

    name: str
    target: str
    measure: Callable[[int, float], Measured]
    seed: int = 0
    slow: bool = False


class Line(NamedTuple):
    """A check that has run."""

    name: str
    target: str
    figure: str
    met: bool
    seed: int
    seconds: float


def run(check: Check, part: float) -> Line:
    """Measure one check."""
    began = time.perf_counter()
    measured = check.measure(check.seed, part)
    took = time.perf_counter() - began
    return Line(check.name, check.target, measured.figure, measured.met, check.seed, took)


def close(found: Sequence[float], wanted: Sequence[float], tolerance: float) -> bool:
    """Whether each number is the wanted one to within `tolerance` of it."""
    return all(
        abs(one - other) <= tolerance * max(abs(other), 1e-300) for one, other in zip(found, wanted, strict=True)
    )
