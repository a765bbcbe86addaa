"""Tells a worker that hangs from one that computes: while it has work and says nothing, it uses the CPU or it hangs."""

from pathlib import Path

LOOKS = 6  # in a row that find nothing new


class Vigil:
    """Looks at one worker after the other."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._same = 0

    def look(self, pid: int, heard: int, ticks: int) -> bool:
        """Whether the worker hangs.

        Args:
            pid: of the worker; 0 if there is none, or it has no work.
            heard: how often it has said something.
            ticks: of CPU that it has used.
        """
        now = (pid, heard, ticks)
        self._same = self._same + 1 if pid and now == self._before else 0
        self._before = now
        if self._same < LOOKS:
            return False
        self._same = 0
        return True


def cpu_ticks(pid: int) -> int:
    """Clock ticks of CPU that the process has used, by all of its threads; 0 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[11]) + int(fields[12])
