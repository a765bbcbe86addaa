"""Content of exchanges, encrypted: AES-256-GCM under a key of the subject, bound to the one record that it belongs to.

Sealed bytes are 28 random ones, the ciphertext and its tag of 16. The first 16 random bytes make the message's own key: BLAKE3 of them, keyed by the
subject's key; the other 12 are the nonce. So no two messages meet under one key and nonce, whoever writes them (the idea of XAES-256-GCM,
https://c2sp.org/XAES-256-GCM, with BLAKE3 in place of CMAC). `docs/reference/journal-format.md` describes it for other readers.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.core.errors import Damaged
from penstock.core.exchange import Content

_SALT = 16
RANDOM_BYTES = 28
LEAST_BYTES = RANDOM_BYTES + 16


class SubjectKey(NamedTuple):
    """A key of one subject."""

    id: str  # 32 hexadecimal digits
    key: bytes  # 32


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What was said in one exchange.

    `messages` are (role, text) of the request; `replies` are (index of the choice, field, text) of the answer.
    """

    messages: tuple[tuple[str, str], ...] = ()
    replies: tuple[tuple[int, str, str], ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Said).decode


def seal(key: SubjectKey, tenant: str, request: str, said: Said, entropy: Callable[[int], bytes] = os.urandom) -> bytes:
    """`said` under `key`, for the record of `request` of `tenant` alone.

    Raises:
        UnicodeEncodeError: if a text is no Unicode text.
    """
    random = entropy(RANDOM_BYTES)
    message: bytes = blake3(random[:_SALT], key=key.key).digest()
    return random + AESGCM(message).encrypt(random[_SALT:], _encode(said), _about(tenant, request, key.id))


def unseal(key: SubjectKey, tenant: str, request: str, content: Content) -> Said:
    """What was sealed.

    Raises:
        Damaged: if it is not what was written for this request of this tenant, under this key.
    """
    sealed = content.sealed
    if len(sealed) < LEAST_BYTES:
        raise Damaged(f"The content of {request} is cut off: it has {len(sealed)} bytes.", code="content_damaged")
    message: bytes = blake3(sealed[:_SALT], key=key.key).digest()
    try:
        plain = AESGCM(message).decrypt(
            sealed[_SALT:RANDOM_BYTES], sealed[RANDOM_BYTES:], _about(tenant, request, key.id)
        )
        return _decode(plain)
    except (InvalidTag, msgspec.DecodeError):
        raise Damaged(
            f"The content of {request} is not what was written there: it was changed, or belongs to another record.",
            code="content_damaged",
        ) from None


def _about(tenant: str, request: str, key: str) -> bytes:
    return f"penstock content 1\0{tenant}\0{request}\0{key}".encode()
