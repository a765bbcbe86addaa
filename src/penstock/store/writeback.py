"""Telling the kernel to begin writing what was written to a file, so that the `fsync` at the end has little left to wait for."""

import ctypes
import sys
from functools import cache
from typing import Any

_WRITE = 2  # SYNC_FILE_RANGE_WRITE
EVERY = 8 << 20  # bytes after which it is worth a call


@cache
def _call() -> Any:
    if sys.platform != "linux":
        return None
    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return found


def write_soon(fd: int, start: int, length: int) -> None:
    """Have those bytes of the file on their way to the disk; nothing is promised, and where the system has no such call nothing happens."""
    call = _call()
    if call is not None:
        call(fd, start, length, _WRITE)
