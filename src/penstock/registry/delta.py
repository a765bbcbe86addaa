"""A block as its difference from another: XOR, byte planes, zstd; back again bit for bit.

Weights that were trained a little further differ from those before in the low bits of their mantissas. The XOR of the two holds
zeros in the bytes of sign and exponent; apart from the others, those bytes shrink to next to nothing.
"""

import numpy as np
import zstandard

from penstock.core.errors import Damaged

LEVEL = 3
WORTH = 0.75  # a delta is kept if it has at most this share of the block's bytes


def encode_delta(data: bytes, base: bytes, width: int) -> bytes:
    """`data` as its difference from `base`, which is as long; elements have `width` bytes."""
    mixed = np.frombuffer(data, np.uint8) ^ np.frombuffer(base, np.uint8)
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(_planes(mixed, width).tobytes())


def decode_delta(delta: bytes, base: bytes, width: int) -> bytes:
    """The block that `encode_delta` was given, with the same `base` and `width`.

    Raises:
        Damaged: if `delta` is none, or not of a block as long as `base`.
    """
    try:
        if zstandard.frame_content_size(delta) != len(base):
            raise Damaged("A delta is not as long as its base.")
        planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(delta, max_output_size=len(base)), np.uint8)
    except zstandard.ZstdError as error:
        raise Damaged(f"A delta cannot be read: {error}.") from None
    if len(planes) != len(base):
        raise Damaged("A delta is not as long as its base.")
    return bytes(_elements(planes, width) ^ np.frombuffer(base, np.uint8))


def _planes(data: np.ndarray, width: int) -> np.ndarray:
    whole = len(data) - len(data) % width
    return np.concatenate((data[:whole].reshape(-1, width).T.reshape(-1), data[whole:]))


def _elements(planes: np.ndarray, width: int) -> np.ndarray:
    whole = len(planes) - len(planes) % width
    return np.concatenate((planes[:whole].reshape(width, -1).T.reshape(-1), planes[whole:]))
