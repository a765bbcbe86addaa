"""Tensors of safetensors files: the header as values, and two tensors compared piece by piece in memory that does not grow with them.

The format: 8 bytes with the header's length N, little endian; N bytes of JSON; then the tensors' bytes, whose places the header tells
(https://huggingface.co/docs/safetensors).
"""

import math
from typing import Any

import msgspec
import numpy as np

from penstock.core.errors import BadRequest

MAX_HEADER = 100_000_000  # bytes, as the format's own library has it
LENGTH_BYTES = 8
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_NUMPY = {
    "BOOL": "u1", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
    "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip


class TensorPlace(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: its type, its shape, and its bytes' place in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def item(self) -> int:
        """Bytes of one number; 0 if the type is not known."""
        return _BITS.get(self.dtype, 0) // 8


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def header_length(first: bytes, size: int, path: str) -> int:
    """The length of the header, from the file's `first` 8 bytes; `size` is the file's.

    Raises:
        BadRequest: if it cannot be.
    """
    length = int.from_bytes(first[:LENGTH_BYTES], "little") if len(first) >= LENGTH_BYTES else -1
    if not 2 <= length <= min(MAX_HEADER, size - LENGTH_BYTES):
        raise _wrong(path, f"its header would have {length} bytes")
    return length


def read_header(header: bytes, size: int, path: str) -> dict[str, TensorPlace]:
    """The tensors by name; `header` is the JSON, `size` the file's.

    Raises:
        BadRequest: if it is no header, or a tensor's place does not fit its shape or the file.
    """
    try:
        raw: dict[str, Any] = msgspec.json.decode(header, type=dict[str, Any])
        raw.pop("__metadata__", None)
        entries = msgspec.convert(raw, dict[str, _Entry])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(path, f"its header is wrong: {error}") from None
    base = LENGTH_BYTES + len(header)
    found = {}
    for name, entry in entries.items():
        start, end = entry.data_offsets
        count = math.prod(entry.shape) if all(part >= 0 for part in entry.shape) else -1
        bits = _BITS.get(entry.dtype)
        if not 0 <= start <= end <= size - base or (bits is not None and count * bits != (end - start) * 8):
            raise _wrong(path, f"the tensor {name!r} does not lie where its shape says")
        found[name] = TensorPlace(dtype=entry.dtype, shape=entry.shape, start=base + start, end=base + end)
    return found


def _wrong(path: str, reason: str) -> BadRequest:
    return BadRequest(f"{path!r} is no safetensors file: {reason}.", param="files", code="bad_safetensors")


def numbers(data: bytes, dtype: str) -> "np.ndarray[Any, np.dtype[np.float64]] | None":
    """`data` as 64-bit floats; None for a type that is not known. Eight-bit floats are those of the OCP's specification (2023)."""
    if dtype == "BF16":
        wide = np.frombuffer(data, dtype="<u2").astype("<u4") << 16
        brain: np.ndarray[Any, np.dtype[np.float64]] = wide.view("<f4").astype(np.float64)
        return brain
    if dtype in _EIGHT:
        return _EIGHT[dtype][np.frombuffer(data, dtype="u1")]
    kind = _NUMPY.get(dtype)
    return None if kind is None else np.frombuffer(data, dtype=kind).astype(np.float64)


def _eight_bits(exponent: int, mantissa: int, bias: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
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
        first = numbers(a, dtype)
        second = first if same else numbers(b, other)
        if first is None or second is None or len(first) != len(second):
            self.known = False
            return
        norm = float(first @ first)
        self.a += norm
        if same:
            self.b += norm
            self.dot += norm
            return
        step = second - first
        self.b += float(second @ second)
        self.moved += float(step @ step)
        self.dot += float(first @ second)

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
