"""The data folder: where things stand in it, and whether it can be used."""

import contextlib
import errno
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from penstock.core.errors import BadRequest, Conflict, Damaged, PenstockError, Unavailable
from penstock.core.snapshot import Snapshot
from penstock.supervisor.place import settle

FREE_BYTES = 64 * 1024 * 1024  # less than this on the disk, and nothing is started
_CHECKED_BYTES = 64 * 1024 * 1024  # a database up to this size is read through before it is used
_SOCKET_PATH_BYTES = 107  # of a Unix socket on Linux
_SQLITE_MAGIC = b"SQLite format 3\0"
_SUBFOLDERS = ("run", "logs", "gateway", "journal", "ship", "builds")


class DataFolder:
    """The layout of `--data DIR`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.run = self.root / "run"
        self.logs = self.root / "logs"
        self.lock_file = self.root / "lock"
        self.supervisor_lock_file = self.run / "supervisor.lock"
        self.supervisor_socket = self.root / "supervisor.sock"
        self.ledger_socket = self.root / "ledger.sock"
        self.ledger_file = self.root / "ledger.log"
        self.database = self.root / "penstock.db"
        self.snapshot = self.root / "gateway" / "snapshot.json"
        self.service_token = self.root / "service.token"
        self.admin_key = self.root / "admin.key"
        self.demo_key = self.root / "demo.key"

    def prepare(self) -> None:
        """Makes the folders that are missing and the token that processes show each other; sees that the folder is no copy that goes as its original.

        Raises:
            Conflict: if it was last used on another machine.
            BadRequest: if its path is too long for the Unix sockets in it.
            Unavailable: if it cannot be written, is no folder, or its disk is full.
        """
        length = len(os.fsencode(self.supervisor_socket))
        if length > _SOCKET_PATH_BYTES:
            raise BadRequest(
                f"The data folder's path is too long: the Unix sockets in it would need {length} bytes and Linux grants "
                f"{_SOCKET_PATH_BYTES}; choose a shorter one with --data.",
                param="--data",
            )
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _SUBFOLDERS:
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
            self._check_space()
            self._check_writable()
            settle(self.root)
            if not self.service_token.exists():
                write_secret(self.service_token, secrets.token_urlsafe(32))
        except OSError as error:
            raise self._sentence(error) from None

    def _check_space(self) -> None:
        free = os.statvfs(self.root)
        if free.f_bavail * free.f_frsize < FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _check_writable(self) -> None:
        draft = self.root / f".writable.{os.getpid()}"
        draft.write_bytes(b"penstock")
        draft.unlink()
        for path in self.root.iterdir():
            if not path.is_socket() and not os.access(path, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def _sentence(self, error: OSError) -> PenstockError:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return Unavailable(
                    f"The disk of {self.root} is full: Penstock needs at least {FREE_BYTES >> 20} MiB free. Make room, or "
                    "choose a folder on another disk with --data.",
                    code="disk_full",
                    param="--data",
                )
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return Unavailable(
                    f"{error.filename or self.root} cannot be read and written by this user ({error.strerror}). Change its "
                    "owner or mode, or choose another folder with --data.",
                    code="permission",
                    param="--data",
                )
            case errno.ENOTDIR | errno.EEXIST:
                return BadRequest(f"{error.filename or self.root} is not a folder; --data names one.", param="--data")
            case _:
                return Unavailable(f"{error.filename or self.root} cannot be used: {error.strerror}.", param="--data")

    def check_files(self) -> None:
        """Looks whether what an earlier run left can be read.

        Raises:
            Damaged: naming the file and what to do, if one cannot.
        """
        check_database(self.database)
        if self.snapshot.exists():
            try:
                msgspec.json.decode(self.snapshot.read_bytes(), type=Snapshot)
            except msgspec.DecodeError as error:
                raise Damaged(
                    f"{self.snapshot} is damaged ({error}). Remove it: control publishes a new one at its start.",
                    param=str(self.snapshot),
                ) from None
        for path in (self.admin_key, self.demo_key, self.service_token):
            if path.exists() and not path.read_bytes().strip():
                raise Damaged(f"{path} is empty; restore it, or remove it to have a new one made.", param=str(path))

    @contextlib.contextmanager
    def lock(self, path: Path, patience_s: float = 0.0) -> Iterator[None]:
        """Holds the lock file `path` for this process, waiting up to `patience_s` seconds for one that is just ending.

        Raises:
            Conflict: if another process holds it; the message names it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        try:
            while not _locked(descriptor):
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise Conflict(
                        f"{self.root} is already in use by pid {holder}; stop that one with 'kill {holder}', or choose "
                        "another folder with --data.",
                        code="folder_in_use",
                        param="--data",
                    )
                time.sleep(0.05)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_database(path: Path) -> None:
    """Returns if the SQLite database at `path` is sound or not there.

    Raises:
        Damaged: if it is not.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    advice = "Restore it from a backup, or move it away to begin with an empty one."
    with path.open("rb") as file:
        if file.read(16) != _SQLITE_MAGIC:
            raise Damaged(f"{path} is damaged: it is no SQLite database. {advice}", param=str(path))
    if path.stat().st_size > _CHECKED_BYTES:
        return
    try:
        connection = sqlite3.connect(path)
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise Damaged(f"{path} is damaged ({error}). {advice}", param=str(path)) from None
    if found != "ok":
        raise Damaged(f"{path} is damaged ({found}). {advice}", param=str(path))


def write_secret(path: Path, text: str) -> None:
    """Writes `text` and a newline to a new file that only its owner can read.

    Raises:
        OSError: if it exists or cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(path)
