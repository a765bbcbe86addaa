"""Digests: how stored things are named for ever."""

import hashlib
import re

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def sha256_digest(data: bytes) -> str:
    """`sha256:` and the 64 hexadecimal digits of the SHA-256 of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is written as a full digest."""
    return _DIGEST.fullmatch(text) is not None


def short(digest: str) -> str:
    """The first 12 hexadecimal digits, for people to read."""
    return digest.removeprefix("sha256:")[:12]


def hash_secret(secret: str) -> str:
    """How a key is stored: the SHA-256 of its text (keys carry 256 random bits, so no salt or stretching is needed)."""
    return hashlib.sha256(secret.encode()).hexdigest()
