"""Whether this control process is ready, and what keeps failing: for /readyz, and for people at /api/v1/conditions."""

import msgspec


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Something that fails, again and again."""

    subject: str  # a replica's id, or a loop's name
    message: str
    failures: int  # in a row
    at: float  # of the last one, Unix seconds


class Readiness:
    """What is still missing, by who waits for it: nothing missing is ready. And what fails, until it goes well again."""

    def __init__(self, *steps: str) -> None:
        self._missing: dict[str, str] = dict.fromkeys(steps, "has not been done yet")
        self._failing: dict[str, Condition] = {}

    def done(self, step: str) -> None:
        """`step` misses nothing any more."""
        self._missing.pop(step, None)

    def wants(self, step: str, reason: str) -> None:
        """`step` still misses something."""
        self._missing[step] = reason

    def missing(self) -> list[str]:
        """A sentence for each step that misses something."""
        return [f"{step} {reason}" for step, reason in self._missing.items()]

    def failed(self, subject: str, message: str, at: float) -> Condition:
        """`subject` failed once more; gives what is known of it now."""
        known = self._failing.get(subject)
        condition = Condition(
            subject=subject, message=message, failures=(known.failures if known is not None else 0) + 1, at=at
        )
        self._failing[subject] = condition
        return condition

    def went_well(self, subject: str) -> None:
        """`subject` fails no more."""
        self._failing.pop(subject, None)

    def conditions(self) -> list[Condition]:
        """What fails now, ordered by subject."""
        return [self._failing[subject] for subject in sorted(self._failing)]

    def why(self, subject: str) -> str:
        """What `subject` last failed with; empty if it does not fail."""
        known = self._failing.get(subject)
        return known.message if known is not None else ""
