"""The log files of processes: each writes to its own with O_APPEND, so that nobody else has to live for it to be kept."""

import os
import shutil
from pathlib import Path
from urllib.parse import quote

LOG_BYTES = 16 * 1024 * 1024  # beyond it the file is moved aside, once
_TAIL_BYTES = 4096


class Logs:
    """`DATA/logs`. A file that outgrew `limit` bytes is copied to `<name>.log.1` and cut to nothing in place.

    (A line written between the copy and the cut is lost: the writer keeps its descriptor and need not be told.)
    """

    def __init__(self, folder: Path, limit: int = LOG_BYTES) -> None:
        self.folder = folder
        self.limit = limit

    def path(self, name: str) -> Path:
        """Where the process `name` logs to."""
        return self.folder / f"{quote(name, safe='')}.log"

    def open(self, name: str) -> int:
        """A descriptor for the process's stdout and stderr; the caller closes it.

        Raises:
            OSError: if the file cannot be had.
        """
        return os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def size(self, name: str) -> int:
        """Bytes in the log now."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def rotate(self) -> None:
        """Moves aside what has grown too long.

        Raises:
            OSError: if the disk refuses it.
        """
        for path in self.folder.glob("*.log"):
            if path.stat().st_size > self.limit:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def last_line(self, name: str, since: int = 0) -> str:
        """The last line that is not empty, written after byte `since`; "" if there is none. Hints are passed over: they follow what is wrong."""
        try:
            with self.path(name).open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                start = max(end - _TAIL_BYTES, since if since <= end else 0)
                file.seek(start)
                text = file.read()
        except FileNotFoundError:
            return ""
        lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith("Hint: ")]
        return (said or lines or [""])[-1]
