"""What the supervisor knows of a process: what it should be, and what it is."""

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from penstock.runtime.port import ReplicaSpec

Kind = Literal["launcher", "supervisor", "control", "gateway", "grpc", "ship", "engine", "examiner"]
State = Literal["starting", "running", "restarting", "draining", "stopped", "failed"]


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process that should run.

    Attributes:
        name: unique on this machine's data folder; names its record and its log.
        argv: the command, program first.
        url: where it answers `/healthz`; "" if it has no port of its own to ask.
        pulse: what is asked instead where it has none; "": nothing can be.
        environment: fingerprint of the settings it is started with, so that other settings mean another process.
        grace_s: how long it may take to drain.
        replica: what control asked for, if it is an engine or the examiner.
    """

    name: str
    kind: Kind
    argv: tuple[str, ...]
    port: int = 0
    url: str = ""
    pulse: str = ""
    environment: str = ""
    grace_s: float = 20.0
    replica: ReplicaSpec | None = None

    @property
    def asked(self) -> str:
        """The address at which it says that it lives; "" if there is none."""
        return f"{self.url}/healthz" if self.url else self.pulse


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`DATA/run/<name>.json`: how a process is found again by whoever comes after.

    `pid` and `started` (field 22 of /proc/PID/stat, in clock ticks since boot) name a process for ever within one `boot`;
    pid 0: it is about to be started.
    """

    spec: ProcessSpec
    pid: int = 0
    started: int = 0
    boot: str = ""
    restarts: int = 0
    at: float = 0.0  # Unix seconds of the start
    port: int = 0  # as in `spec`, for those who only look for it
    url: str = ""


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A process as it is now, as `GET /processes` tells."""

    name: str
    kind: Kind
    state: State
    pid: int
    port: int
    url: str
    restarts: int
    since: float  # Unix seconds of the last start
    streak: int  # early deaths in a row
    last_exit: str  # how it ended last, in words; "" if it never did


def fingerprint(environment: Mapping[str, str]) -> str:
    """What tells two sets of settings apart without telling what is in them: 16 hexadecimal digits."""
    text = "\0".join(f"{name}={value}" for name, value in sorted(environment.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
