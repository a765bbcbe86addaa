"""Ids that sort by time: a prefix, 48 bits of milliseconds and 80 random bits in Crockford's base 32 (the ULID layout)."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)


def make_id(prefix: str, unix_ms: int, entropy: bytes) -> str:
    """An id such as `req_01hv...`: `prefix`, an underscore, 26 characters.

    Args:
        prefix: what it names: `req`, `key`, `rev`, `evt`.
        unix_ms: milliseconds since 1970.
        entropy: 10 random bytes.

    Raises:
        ValueError: if `entropy` is not 10 bytes.
    """
    if len(entropy) != 10:
        raise ValueError("an id needs 10 random bytes")
    value = (unix_ms << 80) | int.from_bytes(entropy, "big")
    pairs = _PAIRS
    return (
        f"{prefix}_{pairs[(value >> 120) & 1023]}{pairs[(value >> 110) & 1023]}{pairs[(value >> 100) & 1023]}"
        f"{pairs[(value >> 90) & 1023]}{pairs[(value >> 80) & 1023]}{pairs[(value >> 70) & 1023]}"
        f"{pairs[(value >> 60) & 1023]}{pairs[(value >> 50) & 1023]}{pairs[(value >> 40) & 1023]}"
        f"{pairs[(value >> 30) & 1023]}{pairs[(value >> 20) & 1023]}{pairs[(value >> 10) & 1023]}{pairs[value & 1023]}"
    )
