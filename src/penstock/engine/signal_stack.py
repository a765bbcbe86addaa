"""What OpenVINO does to the stack on which a thread has its signals handled, undone.

Its CPU plugin gives the thread that loads it another such stack (`sigaltstack`), and unmaps that stack when the last object that uses the
plugin goes. If that happens on another thread, the first one is left with a stack that is not there: the next signal that Python handles
on it cannot be delivered, and the kernel ends the process (SIGSEGV, `SI_KERNEL`).
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def own_signal_stack() -> Iterator[None]:
    """Around whatever may load OpenVINO's CPU plugin: afterwards the thread has the signal stack (or none) that it had before."""
    if sys.platform != "linux":
        yield
        return
    before = _Stack()
    sigaltstack = ctypes.CDLL(None).sigaltstack
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)
