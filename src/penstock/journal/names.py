"""What a journal is called wherever journals of several hosts meet: its worker's name and an id of its own, which stands in its folder.

Workers of two hosts are called alike, and a host may change its name; the id goes with the folder, and a journal that begins anew in an
emptied folder is another one.
"""

import secrets
from pathlib import Path

from penstock.core.errors import Damaged
from penstock.journal.whole import create_whole

_FILE = "id"
_DIGITS = 16


def journal_name(folder: Path) -> str:
    """WORKER.ID of the journal in `folder`, whose name is the worker's; the id is made if there is none.

    Raises:
        Damaged: if the file `id` holds none.
        OSError: if it cannot be read or written.
    """
    path = folder / _FILE
    try:
        text = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        create_whole(path, secrets.token_hex(_DIGITS // 2).encode() + b"\n")  # or another process is first
        text = path.read_text("ascii", "replace").strip()
    if len(text) != _DIGITS or set(text) - set("0123456789abcdef"):
        raise Damaged(f"{path} holds no id of a journal: {_DIGITS} hexadecimal digits are needed.", param=str(path))
    return f"{folder.name}.{text}"
