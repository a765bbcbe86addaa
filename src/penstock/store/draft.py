"""A file being put together from its blocks: in a draft beside its place, which it takes once it is whole and on the disk."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from penstock.core.errors import BadRequest, Conflict, Damaged
from penstock.registry.blocks import Block, Recipe, block_name
from penstock.registry.layout import LENGTH_BYTES, Tensor, header_length, read_constants, read_header, tensors_between
from penstock.store.writeback import write_soon


class Draft:
    """One file that will be `target`. What an earlier draft of it holds already is kept.

    Raises:
        Conflict: if something that is no file is in the way.
        OSError: if it cannot be written.
    """

    def __init__(self, target: Path, name: str, recipe: Recipe) -> None:
        self.target = target
        self.name = name
        self.recipe = recipe
        self._draft = target.with_name(f".{target.name}.part")
        self._starts: dict[str, list[int]] = {}
        at = 0
        for block in recipe:
            self._starts.setdefault(block.name, []).append(at)
            at += block.size
        self.size = at
        self._lock = threading.Lock()
        self._fd = -1

    def is_there(self) -> bool:
        """Whether the target is the file already; every block of it is looked at.

        Raises:
            Conflict: if it is there and no file.
        """
        if self.target.is_symlink() or (self.target.exists() and not self.target.is_file()):
            raise Conflict(f"{self.target} is in the way: it is no file.", param="DIRECTORY")
        if not self.target.exists() or self.target.stat().st_size != self.size:
            return False
        fd = os.open(self.target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return not self._wrong(fd)
        finally:
            os.close(fd)

    def begin(self) -> list[Block]:
        """Make the draft, or go on with one that is there; the blocks that it lacks, each once, in their order."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        if os.fstat(self._fd).st_size == self.size and self.size:
            return self._wrong(self._fd)
        os.truncate(self._fd, 0)
        os.truncate(self._fd, self.size)
        return list({block.name: block for block in self.recipe}.values())

    def place(self, block: Block, data: bytes | memoryview) -> None:
        """Check `data` and write it wherever the file has `block`. Threads may do so at once.

        Raises:
            Damaged: if it is not the block's; the message names the file and the bytes.
        """
        start = self._starts[block.name][0]
        if block_name(data) != block.name:
            tensors = tensors_between(self._tensors(), start, start + block.size)
            where = f", in {' and '.join(tensors[:4])}" if tensors else ""
            raise Damaged(
                f"{self.name} is damaged at bytes {start} to {start + block.size}{where}: what came is not what was stored.",
                param=self.name,
            )
        with self._lock:  # the kernel lets one write a file at a time, and has the others spin
            for at in self._starts[block.name]:
                left, to = memoryview(data), at
                while left:
                    wrote = os.pwrite(self._fd, left, to)
                    left, to = left[wrote:], to + wrote
                write_soon(self._fd, at, len(data))

    def finish(self) -> None:
        """Flush it and give it its name."""
        os.fsync(self._fd)
        self.close()
        self._draft.replace(self.target)

    def close(self) -> None:
        """Leave it as it is, to be gone on with."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _tensors(self) -> tuple[Tensor, ...]:
        """Those of the file, as far as what has come tells."""
        with suppress(OSError, BadRequest):
            if self.name.endswith(".bin"):
                described = self.target.with_suffix(".xml")
                drafted = described.with_name(f".{described.name}.part")
                return read_constants((described if described.is_file() else drafted).read_bytes())
            length = header_length(os.pread(self._fd, LENGTH_BYTES + 1, 0))
            if length is not None:
                return read_header(os.pread(self._fd, length, 0), self.size, self.name)
        return ()

    def _wrong(self, fd: int) -> list[Block]:
        found: dict[str, Block] = {}
        at = 0
        for block in self.recipe:
            if block.name not in found and block_name(os.pread(fd, block.size, at)) != block.name:
                found[block.name] = block
            at += block.size
        return list(found.values())
