"""Where a data folder stands, so that a copy is told from the folder that it was made of: `docs/decisions/0045-copied-folders.md`.

Journals and keys have ids that go with the folder. Two folders with the same ids that tell one control, or one sink, are taken for one: what the
second tells is a repeat.
"""

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from penstock.core.errors import Conflict
from penstock.journal.whole import replace_whole

Verdict = Literal["same", "moved", "copied", "unknown"]
ASIDE = "journal-of-the-original"
_FILE = "place.json"
_MACHINE = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_log = logging.getLogger("penstock.supervisor")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What `DATA/place.json` says.

    Attributes:
        id: of the folder; a copy has the same.
        machine: `/etc/machine-id`; "" where there is none.
        path: absolute.
        inode: of the folder in its file system.
    """

    id: str
    machine: str
    path: str
    inode: int


def judge_place(recorded: Place, now: Place, *, original_there: bool) -> Verdict:
    """What became of a folder since its place was written down.

    Args:
        recorded: what stands in it.
        now: where it is.
        original_there: whether at the recorded path there is another folder with the same id.
    """
    if original_there:
        return "copied"
    if recorded.machine and now.machine and recorded.machine != now.machine:
        return "unknown"  # moved or restored, or a copy of one that goes on elsewhere: people know, we do not
    return "same" if (recorded.path, recorded.inode) == (now.path, now.inode) else "moved"


def settle(root: Path) -> None:
    """See that the folder is where it was, or is somebody's copy that has an identity of its own; to be called before anything in it is opened.

    Raises:
        Conflict: if it was last used on another machine, so that nobody here knows whether that one goes on.
        OSError: if its place cannot be read or written.
    """
    with _alone(root):
        recorded = read_place(root)
        now = _here(root, recorded.id if recorded is not None else secrets.token_hex(8))
        if recorded is None:
            _write(root, now)
            return
        match judge_place(recorded, now, original_there=_is_there(recorded, root)):
            case "same":
                return
            case "moved":
                _log.info("the data folder was at %s and is at %s now; it is the same", recorded.path, now.path)
                _write(root, now)
            case "copied":
                aside = _renew(root)
                _log.warning(
                    "%s is a copy of %s, which is still there: it goes on as a folder of its own, with new ids of journals and keys; %s",
                    root,
                    recorded.path,
                    f"the original's records are in {aside}" if aside else "there were no records in it",
                )
            case "unknown":
                raise Conflict(
                    f"{root} was last used on another machine, at {recorded.path}: if that one goes on, the records of the two would be taken for each other's.",
                    code="folder_elsewhere",
                    param="--data",
                    hint=f"Moved or restored, and the other is gone: penstock folder moved --data {root}. A copy: penstock folder copied --data {root}.",
                )


def declare_moved(root: Path) -> Place:
    """The folder is the one that it was, wherever it stands now.

    Raises:
        OSError: if its place cannot be read or written.
    """
    with _alone(root):
        recorded = read_place(root)
        now = _here(root, recorded.id if recorded is not None else secrets.token_hex(8))
        _write(root, now)
        return now


def declare_copied(root: Path) -> tuple[Place, Path | None]:
    """The folder is a copy: its place with a new id, and where the original's journals were put aside, if there were any.

    Raises:
        OSError: if it cannot be written.
    """
    with _alone(root):
        aside = _renew(root)
        place = read_place(root)
        assert place is not None
        return place, aside


def read_place(root: Path) -> Place | None:
    """What is written down of the place of the folder `root`; None: nothing that can be read."""
    try:
        return msgspec.json.decode((root / _FILE).read_bytes(), type=Place)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def _renew(root: Path) -> Path | None:
    """New ids. Records that came with the copy are the original's to pass on: they are put aside, where nobody reads them."""
    aside = root / ASIDE
    moved = False
    for journal in sorted((root / "journal").glob("*/id")):
        aside.mkdir(mode=0o700, exist_ok=True)
        name = f"{journal.parent.name}.{journal.read_text('ascii', 'replace').strip()[:16]}"
        journal.parent.rename(aside / f"{name}.{secrets.token_hex(2)}")
        moved = True
    for name in ("host", "exchange.json"):
        (root / "keys" / name).unlink(missing_ok=True)
    _write(root, _here(root, secrets.token_hex(8)))
    return aside if moved else None


def _is_there(recorded: Place, root: Path) -> bool:
    """Whether the folder that `recorded` was written in is still where it was, and is not `root`."""
    try:
        original = Path(recorded.path)
        other = read_place(original)
        return other is not None and other.id == recorded.id and not original.samefile(root)
    except OSError:
        return False


def _here(root: Path, identity: str) -> Place:
    return Place(id=identity, machine=_machine(), path=str(root.resolve()), inode=root.stat().st_ino)


def _machine() -> str:
    for path in _MACHINE:
        with contextlib.suppress(OSError):
            if text := path.read_text("ascii", "replace").strip():
                return text
    return ""


def _write(root: Path, place: Place) -> None:
    replace_whole(root / _FILE, msgspec.json.format(msgspec.json.encode(place), indent=1) + b"\n")


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    descriptor = os.open(root / "place.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
