"""Small files that are there whole or not at all, through to the disk, for their owner alone."""

import os
import secrets
from pathlib import Path


def create_whole(path: Path, data: bytes) -> bool:
    """Makes the file `path` of `data`, through to the disk, readable by its owner alone; False if another process was first.

    Raises:
        OSError: if it cannot be written.
    """
    draft = _draft(path, data)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    sync_folder(path.parent)
    return True


def replace_whole(path: Path, data: bytes) -> None:
    """Puts a file of `data` in the place of `path`, through to the disk.

    Raises:
        OSError: if it cannot be written.
    """
    draft = _draft(path, data)
    draft.replace(path)
    sync_folder(path.parent)


def _draft(path: Path, data: bytes) -> Path:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return draft


def sync_folder(folder: Path) -> None:
    """Has the names in `folder` on the disk.

    Raises:
        OSError: if the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
