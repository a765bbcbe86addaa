"""Names of people in records: a keyed hash, so that records of one person belong together but name nobody."""

import os
import secrets
from pathlib import Path

from blake3 import blake3

from penstock.core.errors import Damaged

KEY_BYTES = 32


def load_subject_key(path: Path) -> bytes:
    """The key in `path` (64 hexadecimal digits, mode 0600); a new random one is written there if there is no file.

    Raises:
        Damaged: if the file holds no key.
    """
    if path.exists():
        return _read(path)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
        os.fsync(descriptor)
        os.link(draft, path)  # whole or not at all, and only one of several processes makes it
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        draft.unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Damaged(f"{path} holds no key: expected {2 * KEY_BYTES} hexadecimal digits.")
    return key


def hash_subject(key: bytes, text: str) -> str:
    """BLAKE3 of `text` under `key`, 128 bits as 32 hexadecimal digits; the empty string stays empty."""
    if not text:
        return ""
    digest: str = blake3(text.encode("utf-8", "surrogatepass"), key=key).hexdigest(length=16)
    return digest
