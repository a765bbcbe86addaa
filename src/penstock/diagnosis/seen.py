"""What a look at a running installation finds: the values that the rules judge. Nothing here says what is good or bad."""

import msgspec

from penstock.core.reports import Report


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A process that should run on this machine.

    `halted` is a process of it that exists and is not run (SIGSTOP, a debugger), 0 if none is. `status` is what `/readyz` answered: 0 nothing
    within the time, -1 it has no such path; `complaint` is the answer's text, if that was no 200.
    """

    name: str
    kind: str
    state: str = "running"
    pid: int = 0
    url: str = ""
    restarts: int = 0
    streak: int = 0  # early deaths in a row, before this start
    since: float = 0.0  # of this start, Unix seconds
    last_exit: str = ""
    halted: int = 0
    status: int = -1
    complaint: str = ""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A file system that something is written to."""

    path: str
    free: int
    total: int


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """One of the shipper's readers."""

    name: str
    lag_bytes: int = 0
    problem: str = ""
    dead_letters: int = 0


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's journal: its size and bound on the disk, and what its process could not write since it started.

    `losing`: of `lost`, how many came to it while it was looked at, for about a second.
    """

    worker: str
    bytes: int = 0
    bound: int = 0
    lost: int = 0
    failures: int = 0
    losing: int = 0


class ReplicaSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of a pool: `out` says how many of `workers` gateway workers leave it out, `ejections` why they did so far.

    `dialled` is what went wrong when this machine asked it, empty if it answered; `ours`: Penstock started it.
    """

    pool: str
    id: str
    url: str
    ours: bool = False
    out: int = 0
    workers: int = 0
    ejections: dict[str, int] = {}
    dialled: str = ""


class QueueSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Who waits for a pool now, and for how many there was no place since the workers started."""

    pool: str
    waiting: int = 0
    refusals: dict[str, int] = {}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Equal requests of the last minutes: their number, tokens and cost."""

    tenant: str = ""
    key: str = ""
    model: str = ""
    route: str = ""
    pool: str = ""
    replica: str = ""
    outcome: str = "ok"
    error: str = ""
    count: int = 0
    tokens: int = 0
    cost_nanousd: int = 0


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of the last `window_s` seconds, or the last of them."""

    window_s: float = 300.0
    groups: tuple[Group, ...] = ()


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen from the machine itself, without control.

    `supervisor` and `shipper` say what was wrong when they were asked, empty if nothing was. `metrics` is false if the gateways told none: then
    replicas, queues, ledger and losses are not known. `certificate` is when the one that is shown ends, Unix seconds; 0.0: plain HTTP.
    """

    data: str
    missing: bool = False
    supervisor: str = ""
    shipper: str = ""
    metrics: bool = False
    programs: tuple[Program, ...] = ()
    disks: tuple[Disk, ...] = ()
    readers: tuple[Reader, ...] = ()
    journals: tuple[Journal, ...] = ()
    replicas: tuple[ReplicaSeen, ...] = ()
    queues: tuple[QueueSeen, ...] = ()
    ledgerless: tuple[str, ...] = ()  # workers that cannot ask the ledger of limits
    shared_ledger: bool = False  # it is Redis
    sinks: dict[str, str] = {}  # reader: the setting that says where it writes
    certificate: float = 0.0
    readable_secrets: tuple[str, ...] = ()
    traffic: Traffic = Traffic()


class ConditionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What control fails at, again and again."""

    subject: str
    message: str
    failures: int = 1


class AlertSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that fires."""

    name: str
    summary: str = ""
    runbook: str = ""


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """What control knows."""

    generation: int = 0
    workers: tuple[Report, ...] = ()
    conditions: tuple[ConditionSeen, ...] = ()
    alerts: tuple[AlertSeen, ...] = ()
    traffic: Traffic = Traffic()


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, at `at` (Unix seconds). What could not be looked at is None; `unasked` says why control was not heard."""

    at: float
    machine: Machine | None = None
    plane: Plane | None = None
    unasked: str = ""

    @property
    def traffic(self) -> Traffic:
        """Of this machine's journals if there are any, else of control's index."""
        if self.machine is not None and self.machine.traffic.groups:
            return self.machine.traffic
        return self.plane.traffic if self.plane is not None else Traffic()
