"""Waiting for a condition, with a deadline: the only way that these tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(look: Callable[[], Found | None], deadline_s: float, every_s: float = 0.1) -> Found:
    """What `look` gives as soon as it is not None.

    Raises:
        AssertionError: if the deadline passes first.
    """
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found is not None:
            return found
        assert time.monotonic() < end, f"not so after {deadline_s} s"
        time.sleep(every_s)
