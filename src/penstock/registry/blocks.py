"""Blocks: what files are cut into. A block is named by the BLAKE3 of its bytes; a file is the list of its blocks, its recipe.

A safetensors file is cut where a tensor begins and every 4 MiB from there, its header apart, so that a tensor that stays the same
stays the same blocks wherever it moves to: another order, another shard, a grown neighbour. Any other file is cut every 4 MiB.
"""

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from blake3 import blake3

from penstock.core.errors import BadRequest
from penstock.registry.layout import LENGTH_BYTES, Tensor, header_length, read_header

BLOCK = 4 << 20
NAME_DIGITS = 64
_ENTRY = struct.Struct(">32sI")
_COUNT = struct.Struct(">I")
MAX_BATCH = 64 << 20  # bytes of blocks in one request
MAX_BATCH_BLOCKS = 4096
BATCH_COUNT = _COUNT.size  # bytes that tell the number of blocks
MAX_BATCH_BYTES = BATCH_COUNT + MAX_BATCH_BLOCKS * _ENTRY.size + MAX_BATCH  # of a whole request
MAX_FILE_BLOCKS = 1 << 20


class Block(msgspec.Struct, frozen=True, array_like=True):
    """One block of a file."""

    name: str  # 64 hexadecimal digits
    size: int


Recipe = tuple[Block, ...]


def block_name(data: bytes | bytearray | memoryview) -> str:
    """The name of the block that holds `data`."""
    return blake3(data).hexdigest()


def cuts(size: int, tensors: Sequence[Tensor] | None = None) -> tuple[int, ...]:
    """The sizes of the blocks of a file of `size` bytes, in order: along `tensors` if they are given, else of 4 MiB each."""
    edges = [0, size] if not tensors else [0, tensors[0].start, *(tensor.end for tensor in tensors)]
    sizes: list[int] = []
    for start, end in itertools.pairwise(edges):
        whole, rest = divmod(end - start, BLOCK)
        sizes += [BLOCK] * whole
        if rest:
            sizes.append(rest)
    return tuple(sizes)


def cuts_of(head: bytes, size: int) -> tuple[int, ...]:
    """The sizes of the blocks of a file of `size` bytes that begins with `head`, which holds the whole header if it has one.

    By what the file holds, not by its name. A header that cannot be believed is cut as any other bytes.
    """
    length = header_length(head)
    if length is None or length > min(size, len(head)):
        return cuts(size)
    try:
        return cuts(size, read_header(head, size, ""))
    except BadRequest:
        return cuts(size)


def pack_recipe(blocks: Iterable[Block]) -> bytes:
    """The blocks in the form in which they are kept: 32 bytes of name and 4 of size each, big-endian."""
    return b"".join(_ENTRY.pack(bytes.fromhex(block.name), block.size) for block in blocks)


def unpack_recipe(raw: bytes) -> Recipe:
    """The blocks that `pack_recipe` wrote.

    Raises:
        ValueError: if `raw` is no such list.
    """
    if len(raw) % _ENTRY.size:
        raise ValueError(f"{len(raw)} bytes are no list of blocks")
    return tuple(Block(name.hex(), size) for name, size in _ENTRY.iter_unpack(raw))


def seal_of(raw: bytes) -> str:
    """What a packed recipe is known by: the BLAKE3 of it. Files of one seal have the same bytes."""
    return blake3(raw).hexdigest()


def check_recipe(blocks: Iterable[Sequence[object]], size: int, path: str) -> Recipe:
    """The recipe that a client announced for a file of `size` bytes.

    Raises:
        BadRequest: if a name or size is none, or the sizes do not add up.
    """
    found = []
    total = 0
    for entry in blocks:
        if len(entry) != 2:
            raise _bad(path, "a block is written as its name and its size")
        name, length = entry
        if not isinstance(name, str) or len(name) != NAME_DIGITS or name.strip("0123456789abcdef"):
            raise _bad(path, f"{str(name)[:80]!r} is no name of a block (64 digits of its BLAKE3)")
        if not isinstance(length, int) or not 0 < length <= BLOCK:
            raise _bad(path, f"a block of {length} bytes; 1 to {BLOCK} are taken")
        found.append(Block(name, length))
        total += length
        if len(found) > MAX_FILE_BLOCKS:
            raise _bad(path, f"more than {MAX_FILE_BLOCKS} blocks")
    if total != size:
        raise _bad(path, f"its blocks have {total} bytes together, and the file {size}")
    return tuple(found)


def _bad(path: str, reason: str) -> BadRequest:
    return BadRequest(f"{path!r}: {reason}.", param=f"files.{path}.blocks", code="bad_blocks")


def batch_head(blocks: Sequence[Block]) -> bytes:
    """What stands before the bytes of `blocks` in a request: their number (4 bytes, big-endian) and their packed list."""
    return _COUNT.pack(len(blocks)) + pack_recipe(blocks)


def batch_head_length(begin: bytes) -> int | None:
    """Bytes of the head that begins with `begin`; None if more than `begin` is needed to tell.

    Raises:
        BadRequest: if it names too many blocks, or none.
    """
    if len(begin) < _COUNT.size:
        return None
    count = int.from_bytes(begin[: _COUNT.size], "big")
    if not 0 < count <= MAX_BATCH_BLOCKS:
        raise BadRequest(f"A request brings 1 to {MAX_BATCH_BLOCKS} blocks, not {count}.", param="body")
    return _COUNT.size + count * _ENTRY.size


def read_batch_head(head: bytes) -> Recipe:
    """The blocks that a whole head names.

    Raises:
        BadRequest: if they are too large, alone or together.
    """
    found = unpack_recipe(head[_COUNT.size :])
    if any(not 0 < block.size <= BLOCK for block in found):
        raise BadRequest(f"A block has 1 to {BLOCK} bytes.", param="body")
    if sum(block.size for block in found) > MAX_BATCH:
        raise BadRequest(f"A request brings at most {MAX_BATCH} bytes of blocks.", param="body")
    return found


def batches(blocks: Iterable[Block], most: int = MAX_BATCH) -> list[list[Block]]:
    """`blocks` in their order, in pieces that one request may bring."""
    found: list[list[Block]] = []
    room = count = 0
    for block in blocks:
        if block.size > room or count >= MAX_BATCH_BLOCKS:
            found.append([])
            room, count = most, 0
        found[-1].append(block)
        room -= block.size
        count += 1
    return found


class Cutter:
    """Cuts a file into blocks as its bytes come, where `cuts_of` says; along tensors only if its size is known before."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._held = bytearray()
        self._sizes: Iterator[int] | None = None
        self._wanted = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The blocks that are whole now."""
        self._held += piece
        return self._take(end=False)

    def end(self) -> list[bytes]:
        """The blocks that are left when there are no more bytes."""
        return self._take(end=True)

    def _take(self, *, end: bool) -> list[bytes]:
        if self._sizes is None:
            self._sizes = self._decide(end=end)
        found: list[bytes] = []
        while self._held and self._sizes is not None:
            self._wanted = self._wanted or next(self._sizes, BLOCK)
            if len(self._held) < self._wanted and not end:
                break
            found.append(bytes(self._held[: self._wanted]))
            del self._held[: self._wanted]
            self._wanted = 0
        return found

    def _decide(self, *, end: bool) -> Iterator[int] | None:
        if len(self._held) <= LENGTH_BYTES and not end:
            return None
        length = header_length(bytes(self._held[: LENGTH_BYTES + 1]))
        if length is None or self._size is None or length > self._size:
            return iter(())
        if len(self._held) < length and not end:
            return None
        return iter(cuts_of(bytes(self._held[:length]), self._size))
