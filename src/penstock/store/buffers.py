"""Memory that bodies are received into: a few large buffers, used again and again.

The first touch of a fresh page costs about what hashing its bytes does; a buffer that has been used has its pages.
"""

import mmap
import threading

SIZE = 4 << 20
KEPT = 48  # beyond so many nobody is asked to hold one for longer than it is filled


class Buffer:
    """Memory of `SIZE` bytes. Whoever takes or holds it drops it once; then it is used anew."""

    def __init__(self, pool: "Buffers") -> None:
        self._pool = pool
        self._memory = mmap.mmap(-1, SIZE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self._memory)
        self.users = 0

    def hold(self) -> None:
        """Keep its bytes until one `drop` more."""
        with self._pool.lock:
            self.users += 1

    def drop(self) -> None:
        """Its bytes are not needed any more by one that took or held it."""
        self._pool.dropped(self)


class Buffers:
    """The buffers of a process; any thread may take one.

    Attributes:
        used: how many somebody has taken or holds.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._free: list[Buffer] = []
        self.used = 0

    def take(self) -> Buffer:
        """One that nobody uses, with whatever bytes it had."""
        with self.lock:
            self.used += 1
            buffer = self._free.pop() if self._free else None
        if buffer is None:
            buffer = Buffer(self)
        buffer.users = 1
        return buffer

    def dropped(self, buffer: Buffer) -> None:
        """See `Buffer.drop`."""
        with self.lock:
            buffer.users -= 1
            if buffer.users:
                return
            self.used -= 1
            if len(self._free) < KEPT:
                self._free.append(buffer)

    @property
    def scarce(self) -> bool:
        """Whether so many are used that none should be held."""
        return self.used >= KEPT

    def rest(self) -> None:
        """Give the memory of those that nobody uses back to the system."""
        with self.lock:
            self._free.clear()
