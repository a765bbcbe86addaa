"""How far each reader has passed on each worker's journal: one small file each, `SHIP/<reader>/<worker>.json`."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from penstock.journal.format import Position


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    segment: int
    offset: int
    journal: str = ""  # the name of the journal; "": written before journals had names


def load_offset(folder: Path, reader: str, worker: str, journal: str = "") -> Position | None:
    """The saved position; None if there is none, the file is not readable, or it is of another journal than the one of this name ("": any).

    Then reading starts anew, and the sink drops repeats.
    """
    try:
        saved = msgspec.json.decode((folder / reader / f"{worker}.json").read_bytes(), type=_Saved)
    except (OSError, msgspec.DecodeError):
        return None
    if journal and saved.journal and saved.journal != journal:
        return None
    return Position(saved.segment, saved.offset)


def save_offset(folder: Path, reader: str, worker: str, position: Position, journal: str = "") -> None:
    """Save `position` in the journal of this name, whole or not at all.

    Raises:
        OSError: if the disk refuses; the old position then stands, and some records will be passed on again.
    """
    path = folder / reader / f"{worker}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    saved = _Saved(segment=position.segment, offset=position.offset, journal=journal)
    draft.write_bytes(msgspec.json.encode(saved))
    draft.replace(path)


def keep_readers(folder: Path, readers: Collection[str]) -> list[str]:
    """Makes the folders of `readers`, which hold the journal from now on, and removes those of others, which do no longer.

    A reader that comes back begins anew. Answers with the names of those that were removed.

    Raises:
        OSError: if the disk refuses.
    """
    gone = []
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in readers:
            shutil.rmtree(path)
            gone.append(path.name)
    for name in readers:
        (folder / name).mkdir(exist_ok=True)
    return gone


def shipped_before(folder: Path, worker: str, journal: str = "") -> int:
    """The segment number below which every reader has passed on all of `worker`'s journal of this name; 0 if nothing is known."""
    if not folder.is_dir():
        return 0
    positions = [load_offset(folder, p.name, worker, journal) for p in folder.iterdir() if p.is_dir()]
    known = [p.segment for p in positions if p is not None]
    return min(known) if known and len(known) == len(positions) else 0
