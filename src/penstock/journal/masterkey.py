"""The master key: given by the environment or in a file, it wraps what wraps all other keys, and stands nowhere else."""

import os
import secrets
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.core.errors import Damaged
from penstock.journal.whole import create_whole

KEY_BYTES = 32
NONCE_BYTES = 12
WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + 16


class WrongKey(Exception):
    """What was wrapped is not opened by this key."""


class Wrapping:
    """Wraps keys of 32 bytes with AES-256-GCM under one key.

    Attributes:
        mark: what tells the key from others without telling it, 16 hexadecimal digits.
    """

    __slots__ = ("_aead", "mark")

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.mark: str = blake3(b"penstock mark of a key", key=key).hexdigest(length=8)

    def wrap(self, key: bytes, about: bytes) -> bytes:
        """`key`, wrapped: a nonce, the ciphertext, the tag. It is opened only as what it is `about`."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, key, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """The key.

        Raises:
            WrongKey: if it was wrapped by another one, about something else, or is damaged.
        """
        try:
            return self._aead.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], about)
        except (InvalidTag, ValueError):
            raise WrongKey from None


def parse_key(text: str, source: str) -> bytes:
    """The key that `text` is: 64 hexadecimal digits.

    Raises:
        Damaged: if it is none; the message names `source`, never the text.
    """
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Damaged(f"{source} holds no key: {2 * KEY_BYTES} hexadecimal digits are needed.", param=source)
    return key


def read_key(path: Path) -> bytes:
    """The key in `path`.

    Raises:
        Damaged: if the file is not there, cannot be read, or holds no key.
    """
    try:
        text = path.read_text("ascii", "replace")
    except OSError as error:
        raise Damaged(f"The key in {path} cannot be read: {error.strerror}.", param=str(path)) from None
    return parse_key(text, str(path))


def make_key(path: Path) -> bytes:
    """The key in `path` (mode 0600): a new random one if there is no file. Of several processes one makes it, whole or not at all.

    Raises:
        Damaged: if the file holds no key.
        OSError: if it cannot be written.
    """
    if not path.exists():
        create_whole(path, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
    return read_key(path)
