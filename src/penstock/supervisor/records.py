"""`DATA/run`: the records by which a new supervisor finds the processes of the old one."""

import contextlib
import os
from pathlib import Path
from urllib.parse import quote

import msgspec

from penstock.supervisor.procfs import Handle, boot_id
from penstock.supervisor.values import RunRecord


class Records:
    """The folder of run records. Each is written whole and moved into place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._boot = boot_id()

    def _path(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='')}.json"

    def write(self, record: RunRecord) -> None:
        """Keeps `record` in place of an earlier one of that name.

        Raises:
            OSError: if the disk refuses it.
        """
        path = self._path(record.spec.name)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_bytes(
            msgspec.json.format(
                msgspec.json.encode(
                    msgspec.structs.replace(record, boot=self._boot, port=record.spec.port, url=record.spec.url)
                ),
                indent=1,
            )
        )
        draft.replace(path)

    def read(self, name: str) -> RunRecord | None:
        """The record of that name; None if there is none that can be read."""
        try:
            return msgspec.json.decode(self._path(name).read_bytes(), type=RunRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def remove(self, name: str) -> None:
        """Forgets the process of that name."""
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()

    def all(self) -> list[RunRecord]:
        """Every record that can be read, by name."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                found.append(msgspec.json.decode(path.read_bytes(), type=RunRecord))
        return found

    def lives(self, record: RunRecord) -> bool:
        """Whether the process that `record` is about has not ended."""
        handle = self.handle(record)
        if handle is None:
            return False
        handle.close()
        return True

    def handle(self, record: RunRecord) -> Handle | None:
        """The living process that `record` is about; None if it has ended."""
        if record.boot != self._boot:
            return None
        return Handle.open(record.pid, record.started)
