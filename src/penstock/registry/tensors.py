"""Two tensors compared piece by piece, in memory that does not grow with them. Types are those of safetensors."""

import math
from typing import Any

import msgspec
import numpy as np

_NUMPY = {
    "BOOL": "u1", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
    "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip


_IN_CACHE = (
    1 << 13
)  # numbers worked on at a time: they stay in the cache as 64-bit floats, and no product is shared among threads
_Numbers = np.ndarray[Any, np.dtype[np.float64]]


def width(dtype: str) -> int:
    """Bytes of one number; 0 of a type that is not known."""
    if dtype == "BF16":
        return 2
    if dtype in _EIGHT:
        return 1
    return np.dtype(_NUMPY[dtype]).itemsize if dtype in _NUMPY else 0


def numbers(data: "bytes | memoryview", dtype: str) -> _Numbers:
    """`data` as 64-bit floats, for a type that has a `width`. Eight-bit floats are those of the OCP's specification (2023)."""
    found: _Numbers
    if dtype == "BF16":
        found = (np.frombuffer(data, dtype="<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    elif dtype in _EIGHT:
        found = _EIGHT[dtype][np.frombuffer(data, dtype="u1")]
    else:
        found = np.frombuffer(data, dtype=_NUMPY[dtype]).astype(np.float64)
    return found


def _eight_bits(exponent: int, mantissa: int, bias: int) -> _Numbers:
    values = []
    for code in range(256):
        sign = -1.0 if code & 0x80 else 1.0
        power, part = (code & 0x7F) >> mantissa, code & ((1 << mantissa) - 1)
        if exponent == 5 and power == 31:
            values.append(sign * math.inf if part == 0 else math.nan)
        elif exponent == 4 and power == 15 and part == 7:
            values.append(math.nan)
        elif power == 0:
            values.append(sign * part * 2.0 ** (1 - bias - mantissa))
        else:
            values.append(sign * (1 + part / (1 << mantissa)) * 2.0 ** (power - bias))
    return np.array(values)


_EIGHT = {"F8_E5M2": _eight_bits(5, 2, 15), "F8_E4M3": _eight_bits(4, 3, 7)}


class Sums(msgspec.Struct, kw_only=True):
    """Sums over two vectors: |a|^2, |b|^2, |b - a|^2 and a.b; `equal`: every byte so far was the same."""

    a: float = 0.0
    b: float = 0.0
    moved: float = 0.0
    dot: float = 0.0
    equal: bool = True
    known: bool = True

    def feed(self, a: bytes, b: bytes, dtype: str, other: str) -> None:
        """Adds the same stretch of numbers of both."""
        same = dtype == other and a == b
        self.equal = self.equal and same
        one, two = width(dtype), width(other)
        if not one or not two or len(a) * two != len(b) * one:
            self.known = False
            return
        first, second = memoryview(a), memoryview(b)
        for at in range(0, len(a) // one, _IN_CACHE):
            end = at + _IN_CACHE
            self._add(first[at * one : end * one], None if same else second[at * two : end * two], dtype, other)

    def _add(self, a: memoryview, b: memoryview | None, dtype: str, other: str) -> None:
        x = numbers(a, dtype)
        norm = float(x @ x)
        self.a += norm
        if b is None:
            self.b += norm
            self.dot += norm
            return
        y = numbers(b, other)
        self.b += float(y @ y)
        self.dot += float(x @ y)
        y -= x
        self.moved += float(y @ y)

    def add(self, other: "Sums") -> None:
        """Adds those of another pair: as if the vectors were put one after the other."""
        self.a += other.a
        self.b += other.b
        self.moved += other.moved
        self.dot += other.dot
        self.equal = self.equal and other.equal
        self.known = self.known and other.known

    @property
    def relative(self) -> float | None:
        """|b - a| / |a|; None if it is no number."""
        if not self.known or not math.isfinite(self.moved) or not math.isfinite(self.a):
            return None
        if self.a == 0:
            return 0.0 if self.moved == 0 else None
        return math.sqrt(self.moved / self.a)

    @property
    def cosine(self) -> float | None:
        """a.b / (|a| |b|); None if it is no number."""
        scale = self.a * self.b
        if not self.known or not math.isfinite(scale) or not math.isfinite(self.dot) or scale <= 0:
            return None
        return max(-1.0, min(1.0, self.dot / math.sqrt(scale)))
