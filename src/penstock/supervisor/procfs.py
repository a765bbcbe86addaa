"""Processes by pid *and* start time, so that a pid that was given to somebody else is never touched."""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")


def boot_id() -> str:
    """Names this boot of the kernel: start times count from it."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When `pid` was started, in clock ticks since boot (field 22 of its stat); None if there is no such process."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may hold anything: count from its end.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def is_zombie(pid: int) -> bool:
    """Whether `pid` has ended and only waits to be collected."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] == b"Z"


_STATES = {"R": "running", "S": "asleep", "D": "waiting for a device", "T": "stopped", "t": "traced", "Z": "ended"}


def state_of(pid: int) -> str:
    """What the kernel says that `pid` does, in a word."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    letter = stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3].decode()
    return _STATES.get(letter, f"in the state {letter}")


def halted_under(pids: Iterable[int]) -> dict[int, int]:
    """For each of `pids` that is stopped by a signal or a debugger, or has such a descendant: the first process that is."""
    parents: dict[int, int] = {}
    halted: list[int] = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:
                continue
            state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
            parents[int(entry.name)] = int(parent)
            if state in {b"T", b"t"}:
                halted.append(int(entry.name))
    wanted, found = set(pids), dict[int, int]()
    for one in sorted(halted):
        above = one
        while above > 1:
            if above in wanted:
                found.setdefault(above, one)
                break
            above = parents.get(above, 0)
    return found


def environment_of(pid: int) -> dict[str, str]:
    """What `pid` was started with; empty if there is no such process, or it is another user's."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    return dict(one.split("=", 1) for one in raw.decode("utf-8", "replace").split("\0") if "=" in one)


def pids_with(argv: tuple[str, ...]) -> Iterator[int]:
    """Pids of living processes whose command line is exactly `argv`."""
    wanted = "\0".join(argv).encode() + b"\0"
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes() == wanted:
                    yield int(entry.name)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue


class Handle:
    """A process held by a pidfd. The descriptor becomes readable when the process ends."""

    __slots__ = ("fd", "pid", "started")

    def __init__(self, pid: int, started: int, fd: int) -> None:
        self.pid = pid
        self.started = started
        self.fd = fd

    @classmethod
    def open(cls, pid: int, started: int | None = None) -> "Handle | None":
        """The living process `pid`; None if it has ended or is not the one that was started at `started`."""
        if pid <= 0:
            return None
        try:
            fd = os.pidfd_open(pid)
        except (ProcessLookupError, OSError):
            return None
        now = start_ticks(pid)
        if now is None or (started is not None and now != started) or is_zombie(pid):
            os.close(fd)
            return None
        return cls(pid, now, fd)

    def send(self, number: signal.Signals) -> bool:
        """Signals the process; False if it has ended."""
        try:
            signal.pidfd_send_signal(self.fd, number)
        except ProcessLookupError:
            return False
        return True

    def collect(self) -> str:
        """How it ended, in words; "ended" if it was nobody's child here, so that its status is not known."""
        try:
            result = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return "ended"
        if result is None:
            return "ended"
        if result.si_code == os.CLD_EXITED:
            return f"exit status {result.si_status}"
        return f"killed by {signal.Signals(result.si_status).name}"

    def close(self) -> None:
        """Gives the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
