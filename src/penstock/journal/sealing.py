"""Keys of subjects, and how they seal what was said: AES-256-GCM, bound to the one record that it belongs to.

Sealed bytes are a salt of 16, a nonce of 12, the ciphertext and its tag of 16. BLAKE3 of the salt, keyed by the subject's key, is the key that
encrypts (the idea of XAES-256-GCM, https://c2sp.org/XAES-256-GCM, with BLAKE3 in place of CMAC). Whoever holds the subject's key draws a
salt of its own and counts its nonces, so that no two messages meet under one key and nonce, whoever writes them.
`docs/reference/journal-format.md` describes it for other readers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
MOST_MESSAGES: Final = (
    1 << 20
)  # under one salt; a key may encrypt 2^32 with nonces that are counted (NIST SP 800-38D, 8.3)
Messages = list[tuple[str, str]]  # role, text
Replies = list[tuple[int, str, str]]  # index of the choice, field, text

_encode = msgspec.msgpack.Encoder().encode


class SubjectKey:
    """A key of one subject. Its owner is one thread.

    Attributes:
        id: 32 hexadecimal digits.
        key: 32 bytes.
    """

    __slots__ = ("_about", "_cipher", "_count", "_salt", "id", "key")

    def __init__(self, name: str, key: bytes) -> None:
        self.id = name
        self.key = key
        self._about = f"\0{name}"
        self._salt = b""
        self._count = MOST_MESSAGES
        self._cipher: AESGCM | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubjectKey) and self.id == other.id and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[type[SubjectKey], tuple[str, bytes]]:
        return SubjectKey, (self.id, self.key)

    def seal(
        self,
        tenant: str,
        record: str,
        messages: Messages,
        replies: Replies,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> bytes:
        """What was said, for the record with this id of `tenant` alone.

        Raises:
            UnicodeEncodeError: if a text is no Unicode text.
        """
        plain = _encode((messages, replies))
        cipher = self._cipher
        if cipher is None or self._count >= MOST_MESSAGES:
            self._salt = entropy(SALT_BYTES)
            cipher = self._cipher = self.cipher(self._salt)
            self._count = 0
        nonce = self._count.to_bytes(NONCE_BYTES, "big")
        self._count += 1
        return self._salt + nonce + cipher.encrypt(nonce, plain, self.about(tenant, record))

    def cipher(self, salt: bytes) -> AESGCM:
        """What encrypts under this salt."""
        return AESGCM(blake3(salt, key=self.key).digest())

    def about(self, tenant: str, record: str) -> bytes:
        """What a ciphertext is bound to."""
        return f"penstock content 1\0{tenant}\0{record}{self._about}".encode()
