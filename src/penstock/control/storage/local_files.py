"""Files of this machine on their way into the stores."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from penstock.store.blobs import PIECE


def file_digests(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below `folder` by its path there, with `/`: its digest (sha256:...) and its size in bytes. Links are left out.

    Raises:
        OSError: if one cannot be read.
    """
    found: dict[str, tuple[str, int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = (f"sha256:{digest}", path.stat().st_size)
    return found


async def file_pieces(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file, piece by piece, read beside the event loop.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
