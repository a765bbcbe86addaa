"""Memory of buffers that come and go by the megabyte: kept by the process, not given back and asked for again."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEEP = 256 << 20
_LARGEST = 32 << 20


def keep_buffers() -> None:
    """Have the C library keep up to 256 MiB of freed memory, where it is glibc; elsewhere nothing is done.

    By default each buffer of a megabyte is mapped and unmapped, and its every page zeroed by the kernel: three quarters of what storing a block costs.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, _KEEP)
