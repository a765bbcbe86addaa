"""What a gateway worker tells control of itself."""

from typing import Literal

import msgspec

FaultKind = Literal["policy", "tenant", "key", "pool", "route"]
FAULT_KINDS: tuple[FaultKind, ...] = ("policy", "tenant", "key", "pool", "route")
MOST_FAULTS = 20  # that a report names
MOST_OUT = 200  # replicas that a report names


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a Snapshot that cannot be used: what depends on it is refused, all else is served."""

    kind: FaultKind
    name: str
    why: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's state. Workers are told apart by their journals; of former versions, which name none, by host and name."""

    worker: str
    host: str = ""
    journal: str = ""  # the name of the worker's
    pid: int = 0
    generation: int = 0  # of the Snapshot in use
    at: float = 0.0  # Unix seconds
    refused: str = ""  # why a newer Snapshot was refused whole
    faults: tuple[Fault, ...] = ()  # of the Snapshot in use, the first `MOST_FAULTS`
    fault_count: int = 0
    out: tuple[str, ...] = ()  # POOL/REPLICA of those that get no requests of this worker now, the first `MOST_OUT`
