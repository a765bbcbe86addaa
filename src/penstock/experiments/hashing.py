"""The hash of everything that is decided by unit: stateless, so that every gateway worker answers alike without asking anybody.

It is GrowthBook's (docs.growthbook.io/lib/build-your-own, "Hashing"), so that an application which buckets the same users with GrowthBook's
SDK and the same seed sees the same arms.
"""

_OFFSET = 0x811C9DC5
_PRIME = 0x01000193
_MASK = 0xFFFFFFFF


def fnv32a(text: str, start: int = _OFFSET) -> int:
    """32-bit FNV-1a over the code points of `text` (Fowler, Noll, Vo), going on from the state `start`."""
    state = start
    for code in text.encode() if text.isascii() else map(ord, text):
        state = ((state ^ code) * _PRIME) & _MASK
    return state


def bucket(seed: str, value: str, version: int = 2) -> float:
    """The bucket of `value` in [0, 1): in steps of 1/10,000 by hash version 2, of 1/1,000 by version 1 (biased; for old data).

    `bucket("seed", "a")` is 0.0505.
    """
    if version == 1:
        return (fnv32a(value + seed) % 1000) / 1000
    return (fnv32a(str(fnv32a(seed + value))) % 10000) / 10000
