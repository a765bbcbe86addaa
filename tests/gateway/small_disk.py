"""Disks that fill, for real: a small file system of its own where mounting is allowed, else the kernel's bound on the size of files."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LESS_THAN_A_SEGMENT = 63  # bytes: not even a segment's header


class Disk:
    """One that `fill` fills and `free` frees."""

    def __init__(self, path: Path, *, mounted: bool) -> None:
        self.path = path
        self.mounted = mounted
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        """No byte more; what is left of a file's last page may still be written."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (_LESS_THAN_A_SEGMENT, self._before[1]))
            return
        for piece in (65536, 4096, 1):
            try:
                with (self.path / "ballast").open("ab", buffering=0) as ballast:
                    while ballast.write(bytes(piece)) == piece:
                        pass
            except OSError:
                continue

    def free(self) -> None:
        """Room again."""
        if self.mounted:
            (self.path / "ballast").unlink(missing_ok=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def mount(path: Path, size: str) -> bool:
    """A file system of `size` at `path`; whether that is allowed here."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def small_disk(path: Path, *, mounted: bool, size: str = "1m") -> Iterator[Disk | None]:
    """A disk at `path`; None if a file system is wanted and none may be mounted."""
    if mounted and not mount(path, size):
        yield None
        return
    disk = Disk(path, mounted=mounted)
    try:
        yield disk
    finally:
        disk.free()
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=False)
