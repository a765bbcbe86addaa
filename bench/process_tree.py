"""CPU time and memory of a process and all its descendants, from /proc."""

import os
from pathlib import Path

import msgspec

_TICK = os.sysconf("SC_CLK_TCK")


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """CPU microseconds since the processes' start, and resident memory in MiB."""

    cpu_us: float
    resident_mib: float


def family(root: int) -> list[int]:
    """`root` and every process below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def spent(root: int) -> Spent:
    """What the family of `root` has used so far.

    The scheduler's own count (nanoseconds, each living thread) is taken, or the kernel's ticks where these say more,
    because threads that ended are only in the latter.
    """
    total_us = resident_kib = 0.0
    for pid in family(root):
        process = Path(f"/proc/{pid}")
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
            ticks_us = sum(int(fields[i]) for i in (11, 12, 13, 14)) * 1e6 / _TICK
            exact_us = sum(int((t / "schedstat").read_text().split()[0]) for t in (process / "task").iterdir()) / 1e3
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    resident_kib += int(line.split()[1])
        except OSError:
            continue
        total_us += ticks_us if ticks_us > exact_us * 1.3 else exact_us
    return Spent(cpu_us=total_us, resident_mib=resident_kib / 1024)
