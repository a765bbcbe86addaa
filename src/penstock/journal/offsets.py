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


def load_offset(folder: Path, reader: str, worker: str) -> Position | None:
    """The saved position; None if there is none, or the file is not readable: then reading starts anew, and the sink drops repeats."""
    try:
        saved = msgspec.json.decode((folder / reader / f"{worker}.json").read_bytes(), type=_Saved)
    except (OSError, msgspec.DecodeError):
        return None
    return Position(saved.segment, saved.offset)


def save_offset(folder: Path, reader: str, worker: str, position: Position) -> None:
    """Save `position`, whole or not at all.

    Raises:
        OSError: if the disk refuses; the old position then stands, and some records will be passed on again.
    """
    path = folder / reader / f"{worker}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(_Saved(segment=position.segment, offset=position.offset)))
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


def shipped_before(folder: Path, worker: str) -> int:
    """The segment number below which every reader has passed on all of `worker`'s journal; 0 if nothing is known."""
    if not folder.is_dir():
        return 0
    positions = [load_offset(folder, p.name, worker) for p in folder.iterdir() if p.is_dir()]
    known = [p.segment for p in positions if p is not None]
    return min(known) if known and len(known) == len(positions) else 0
