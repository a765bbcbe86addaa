"""One replica as its pool's balancer sees it: what runs on it, what is known of its health."""

from __future__ import annotations

from typing import Literal

from xxhash import xxh3_64_intdigest

from penstock.core.snapshot import Replica

Reason = Literal["unreachable", "probe", "failures", "failing", "slow"]
Condition = Literal["up", "slow_start", "trial", "out"]


class Typical:
    """The typical time to an answer's first byte, as a moving geometric mean: a few slow requests do not move it far.

    Attributes:
        log_s: mean of the natural logarithms of seconds.
        count: how many observations it stands on; it fades, see `health.review`.
    """

    __slots__ = ("count", "log_s")

    def __init__(self) -> None:
        self.count = 0.0
        self.log_s = 0.0

    def add(self, log_s: float) -> None:
        """One observation."""
        count = self.count = self.count + 1.0
        self.log_s += (log_s - self.log_s) * (1.0 / count if count < 20.0 else 0.05)


class Member:
    """Mutable, owned by its balancer; who runs a request on it holds it until `Balancer.ended`.

    Attributes:
        gone: it has left the pool; what still runs on it is counted to its end.
        out_until: when its pause ends; 0.0: it is not left out.
        returned: when it came back from a pause; 0.0: long ago.
        trying: a request tries whether it works again.
        answered, failed: requests that it did its part in, and those that it did not, since the start.
    """

    __slots__ = (
        "answered", "ejections", "failed", "failures", "gone", "in_flight", "missed", "out_until", "probe_at", "reason", "replica",
        "returned", "seed", "seen", "stream", "trying", "whole", "window",
    )  # fmt: skip

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.seed = xxh3_64_intdigest(replica.id.encode())
        self.gone = False
        self.in_flight = 0
        self.answered = 0
        self.failed = 0
        self.failures = 0  # in a row
        self.missed = 0  # probes in a row
        self.ejections = 0  # since it last was well for a while
        self.reason: Reason = "failures"  # of the last of them
        self.out_until = 0.0
        self.returned = 0.0
        self.trying = False
        self.whole = Typical()
        self.stream = Typical()
        self.window = (0, 0)  # `answered` and `failed` when they were last looked at
        self.probe_at = 0.0
        self.seen = -1  # `answered` at the last look of the probes

    def condition(self, now: float) -> Condition:
        """In a word."""
        if self.out_until:
            return "out" if now < self.out_until else "trial"
        return "slow_start" if self.returned else "up"
