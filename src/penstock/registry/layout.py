"""Where tensors lie in a file of weights: safetensors by its own header, OpenVINO's `.bin` by the `.xml` beside it.

A header is a stranger's: sizes, offsets, shapes and names are checked before anything is believed. The format of safetensors:
8 bytes, little-endian, the header's length N; N bytes of JSON, an object of `{name: {dtype, shape, data_offsets}}`; then the
tensors' bytes without holes (https://huggingface.co/docs/safetensors, "Format").
"""

import bisect
import re
from collections.abc import Sequence
from math import prod

import msgspec

from penstock.core.errors import BadRequest

LENGTH_BYTES = 8
MAX_HEADER = 16 << 20
MAX_TENSORS = 8192  # of one file: real shards hold some hundreds
MAX_DIMENSIONS = 32
_MAX_NAME = 1024
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_CONSTANT = re.compile(
    rb'<layer\b[^>]{0,4096}?\bname="([^"]{1,1024})"[^>]{0,4096}?\btype="Const"[^>]{0,4096}>\s*'
    rb'<data\b[^>]{0,4096}?\boffset="(\d{1,18})"[^>]{0,4096}?\bsize="(\d{1,18})"'
)


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: bytes `start` to `end` of its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def width(self) -> int:
        """Bytes of one element; 1 for elements that are smaller."""
        return max(1, _BITS.get(self.dtype, 8) // 8)


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def header_length(head: bytes) -> int | None:
    """Bytes of the whole header, its length included, if `head` may begin a safetensors file (9 bytes tell); else None."""
    if len(head) <= LENGTH_BYTES or head[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        return None
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return LENGTH_BYTES + length if 2 <= length <= MAX_HEADER else None


def read_header(head: bytes, size: int, path: str) -> tuple[Tensor, ...]:
    """The tensors of a safetensors file of `size` bytes that begins with `head`, in the order of their bytes.

    Raises:
        BadRequest: if the header is none, too long, has too many tensors, or if the tensors leave the file, overlap, leave holes or
            are not as long as their shapes say; the message names `path` and the tensor.
    """
    if len(head) < LENGTH_BYTES:
        raise _bad(path, "it is too short for a header")
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if length > MAX_HEADER:
        raise _bad(path, f"its header is said to have {length} bytes, and at most {MAX_HEADER} are read")
    begin = LENGTH_BYTES + length
    if begin > size or begin > len(head):
        raise _bad(path, f"its header is said to have {length} bytes, which the file does not hold")
    try:
        entries = msgspec.json.decode(head[LENGTH_BYTES:begin], type=dict[str, msgspec.Raw])
        metadata = entries.pop("__metadata__", None)
        if metadata is not None:
            msgspec.json.decode(metadata, type=dict[str, str])
        if len(entries) > MAX_TENSORS:
            raise _bad(path, f"it holds {len(entries)} tensors, and at most {MAX_TENSORS} are taken")
        found = [_tensor(name, msgspec.json.decode(raw, type=_Entry), begin, path) for name, raw in entries.items()]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _bad(path, f"its header is none of safetensors ({error})") from None
    found.sort(key=lambda tensor: (tensor.start, tensor.end))
    at = begin
    for tensor in found:
        if tensor.start != at:
            what = "overlaps the one before it" if tensor.start < at else "leaves a hole before it"
            raise _bad(path, f"the tensor {tensor.name!r} {what}")
        at = tensor.end
    if at != size:
        raise _bad(path, f"its tensors end at byte {at}, and the file has {size}")
    return tuple(found)


def _tensor(name: str, entry: _Entry, begin: int, path: str) -> Tensor:
    if not name or len(name) > _MAX_NAME:
        raise _bad(path, f"a tensor's name has {len(name)} characters; 1 to {_MAX_NAME} are taken")
    bits = _BITS.get(entry.dtype)
    if bits is None:
        raise _bad(path, f"the tensor {name!r} is of the unknown type {entry.dtype!r}")
    if len(entry.shape) > MAX_DIMENSIONS or any(not 0 <= n < 1 << 48 for n in entry.shape):
        raise _bad(path, f"the tensor {name!r} has no shape that a tensor can have")
    start, end = entry.data_offsets
    if not 0 <= start <= end < 1 << 60:
        raise _bad(path, f"the tensor {name!r} is said to lie from {start} to {end}")
    count = prod(entry.shape) * bits
    if count % 8 or count // 8 != end - start:
        raise _bad(path, f"the tensor {name!r} has {end - start} bytes, and its shape makes {count / 8:.10g}")
    return Tensor(name=name, dtype=entry.dtype, shape=entry.shape, start=begin + start, end=begin + end)


def _bad(path: str, reason: str) -> BadRequest:
    return BadRequest(f"{path!r} is not taken: {reason}.", param="files", code="bad_weights")


def read_constants(xml: bytes) -> tuple[Tensor, ...]:
    """The constants of an OpenVINO model, whose `.xml` is given, as they lie in its `.bin`. What is not read right is left out."""
    found = [
        Tensor(
            name=name.decode(errors="replace"), dtype="U8", shape=(int(size),), start=int(at), end=int(at) + int(size)
        )
        for name, at, size in _CONSTANT.findall(xml)
    ]
    return tuple(sorted(found, key=lambda tensor: tensor.start))


def tensors_between(tensors: Sequence[Tensor], start: int, end: int) -> tuple[str, ...]:
    """The names of those of `tensors` (in order) that have a byte in `start` to `end`."""
    first = max(0, bisect.bisect_right(tensors, start, key=lambda tensor: tensor.start) - 1)
    found = []
    for tensor in tensors[first:]:
        if tensor.start >= end:
            break
        if tensor.end > start:
            found.append(tensor.name)
    return tuple(found)
