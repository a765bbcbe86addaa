"""Whether this control process is ready: its steps of starting are done, and what is deployed has replicas."""


class Readiness:
    """What is still missing, by who waits for it; nothing missing is ready."""

    def __init__(self, *steps: str) -> None:
        self._missing: dict[str, str] = dict.fromkeys(steps, "has not been done yet")

    def done(self, step: str) -> None:
        """`step` misses nothing any more."""
        self._missing.pop(step, None)

    def wants(self, step: str, reason: str) -> None:
        """`step` still misses something."""
        self._missing[step] = reason

    def missing(self) -> list[str]:
        """A sentence for each step that misses something."""
        return [f"{step} {reason}" for step, reason in self._missing.items()]
