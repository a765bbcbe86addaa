"""How many threads a step should use on a machine that others use too.

Threads that wait for each other are as slow as the slowest: beside one busy process, one thread can be faster than two.
"""

from __future__ import annotations

_PROBE_EVERY = 15  # steps


class Threads:
    """Tries one thread and all of them by turns, and keeps to what was quicker of late."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds: dict[int, float] = {}
        self._step = 0
        self.now = most

    def choose(self) -> int:
        """The number of threads for the next step."""
        self._step += 1
        choices = sorted({1, self._most})
        best = min(choices, key=lambda n: self._seconds.get(n, 0.0))
        probing = self._step % _PROBE_EVERY == 0
        self.now = next((n for n in choices if n != best), best) if probing else best
        return self.now

    def took(self, seconds: float) -> None:
        """Tells how long the step took."""
        before = self._seconds.get(self.now, seconds)
        self._seconds[self.now] = 0.5 * before + 0.5 * seconds
