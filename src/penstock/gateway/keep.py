"""The Snapshot on disk: what a worker starts from when control is away. Written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from penstock.core.errors import Damaged
from penstock.core.snapshot import Snapshot


class _Head(msgspec.Struct, frozen=True):
    generation: int = 0


_decode = msgspec.json.Decoder(Snapshot).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_encode = msgspec.json.Encoder().encode


def read_snapshot(path: Path) -> Snapshot | None:
    """The Snapshot in `path`; None if there is no such file.

    Raises:
        Damaged: if the file holds none.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return _decode(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} holds no Snapshot: {error}. Remove it; control publishes a new one.") from None


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Puts `snapshot` in the place of an older one; of several writers the newest generation stays.

    Raises:
        OSError: if the disk refuses.
    """
    try:
        if _decode_head(path.read_bytes()).generation >= snapshot.generation:
            return
    except (FileNotFoundError, ValueError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(_encode(snapshot))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def set_aside(path: Path, known: tuple[int, int, int]) -> None:
    """Puts a damaged file out of the way of the next one, unless that is there already: `known` is its `mark`, taken before it was read.

    It is kept beside it as `.damaged`.
    """
    if mark(path) == known:
        with suppress(OSError):
            path.replace(path.with_name(f"{path.name}.damaged"))


def mark(path: Path) -> tuple[int, int, int]:
    """What changes when the file does; zeros if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
