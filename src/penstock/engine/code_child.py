"""The process that runs a version's own code. It stands alone: the standard library and nothing of Penstock, started by file name.

It is a fork server. The engine asks for a call by handing over a socket; a fork of this process seals itself, reads what is to be done from
that socket, does it, writes what came of it, and ends. So this process never sees a text, and no call sees another's.

Between engine and server: one JSON document a datagram. Between engine and call: four bytes of length, little-endian, and that much JSON.
"""

import builtins
import contextlib
import ctypes
import gc
import json
import math
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from types import TracebackType
from typing import Any

# What code may import: whatever is here before the seal, since no file can be opened after it.
MODULES = (
    "abc", "ast", "base64", "binascii", "bisect", "calendar", "cmath", "codecs", "collections", "collections.abc", "colorsys", "contextlib",
    "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "html",
    "html.entities", "html.parser", "io", "itertools", "json", "keyword", "logging", "math", "numbers", "operator", "pprint", "random", "re",
    "reprlib", "secrets", "shlex", "statistics", "string", "struct", "textwrap", "time", "types", "typing", "unicodedata", "urllib.parse",
    "uuid", "weakref", "xml.sax.saxutils", "zlib", "encodings.idna", "encodings.ascii", "encodings.latin_1", "encodings.utf_16",
)  # fmt: skip

LENGTH = struct.Struct("<I")
MOST_BYTES = 8 << 20  # of a document, either way
MEMORY_BYTES = 256 << 20  # beyond what the server has itself
_FILE = "processing.py"
_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_FILTER_MODE = 2
_EPERM, _MOST_WORDS = 1, 500

# linux/audit.h, and per machine the numbers of what a sealed process may ask of the kernel (asm/unistd.h).
_SEALS: dict[str, tuple[int, tuple[int, ...]]] = {
    # read write close fstat lseek mmap mprotect munmap brk sigreturn sched_yield mremap madvise nanosleep getpid
    # exit gettimeofday sigaltstack time futex restart clock_gettime clock_nanosleep exit_group getrandom
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 15, 24, 25, 28, 35, 39, 60, 96, 131, 201, 202, 219, 228, 230, 231, 318),
    ),
    "aarch64": (
        0xC00000B7,
        (
            63,
            64,
            57,
            80,
            62,
            222,
            226,
            215,
            214,
            139,
            124,
            216,
            233,
            101,
            172,
            93,
            169,
            132,
            98,
            128,
            113,
            115,
            94,
            278,
        ),
    ),
}
_X32 = 0x40000000  # the bit that marks the other calls of x86_64
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | _EPERM, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_of(machine: str) -> bytes:
    """The seccomp filter (classic BPF, linux/seccomp.h) for a machine: what is not named is refused with EPERM, foreign calls kill.

    Raises:
        KeyError: if the machine is not known.
    """
    arch, allowed = _SEALS[machine]

    def step(code: int, true: int, false: int, value: int) -> bytes:
        return struct.pack("<HBBI", code, true, false, value)

    parts = [step(_LOAD, 0, 0, 4), step(_EQUAL, 1, 0, arch), step(_RETURN, 0, 0, _KILL), step(_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        parts += [step(_AT_LEAST, 0, 1, _X32), step(_RETURN, 0, 0, _KILL)]
    for number in allowed:
        parts += [step(_EQUAL, 0, 1, number), step(_RETURN, 0, 0, _ALLOW)]
    return b"".join([*parts, step(_RETURN, 0, 0, _REFUSE)])


class Seal:
    """What turns a process into one that can compute and nothing else; made before, since it needs memory and a library."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._steps = ctypes.create_string_buffer(filter_of(platform.machine()))
        self._program = _Program((len(self._steps) - 1) // 8, ctypes.cast(self._steps, ctypes.c_void_p))

    def control(self, option: int, value: int) -> None:
        """prctl(2).

        Raises:
            OSError: if the kernel refuses.
        """
        if self._libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")

    def close(self) -> None:
        """From now on the filter holds, for ever.

        Raises:
            OSError: if the kernel has no seccomp.
        """
        if self._libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(self._program), 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no seccomp filter can be set")


def main(argv: list[str]) -> int:
    """Serve the engine whose process id is `argv[1]` over the socket whose descriptor is `argv[0]`, until it goes; the exit status."""
    control, parent = socket.socket(fileno=int(argv[0])), int(argv[1])
    try:
        seal = Seal()
        for name in MODULES:
            __import__(name)
        base = _memory()
        _settle(seal, parent)
        _try_out(seal, base)
    except (OSError, KeyError) as error:
        why = f"no seal for {error.args[0]}" if isinstance(error, KeyError) else str(error)
        control.send(json.dumps({"ready": False, "why": why}).encode())
        return 1
    gc.freeze()
    control.send(b'{"ready": true}')
    _serve(control, seal, base)
    return 0


def _memory() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - no more modules than needed
        return int(file.read().split()[0]) * resource.getpagesize()


def _settle(seal: Seal, parent: int) -> None:
    """Give up what the engine has and code shall not: rights, files, the environment, life without the engine."""
    os.environ.clear()
    seal.control(_PR_SET_NO_NEW_PRIVS, 1)
    if os.geteuid() == 0:
        with contextlib.suppress(
            PermissionError
        ):  # root of a container may be without these rights; the seal holds all the same
            os.chroot(".")
            os.chdir("/")
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    seal.control(_PR_SET_DUMPABLE, 0)
    seal.control(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which would undo it
    if os.getppid() != parent:
        raise OSError("the engine has gone")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _try_out(seal: Seal, base: int) -> None:
    """Fork, seal, and see that neither a socket nor a file nor a process can be had.

    Raises:
        OSError: if one can.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _limit(seal, base, 1.0, os.getppid())
            status = 0 if all(_refused(what) for what in (_make_socket, _open_file, os.fork)) else 2
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    if ended != 0:
        raise OSError(f"the seal does not hold here (status {ended})")


def _make_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def _open_file() -> None:
    os.open("/", os.O_RDONLY)


def _refused(do: Any) -> bool:
    try:
        do()
    except PermissionError:
        return True
    return False


def _limit(seal: Seal, base: int, seconds: float, server: int) -> None:
    seal.control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    whole = math.ceil(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole))
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY_BYTES,) * 2)
    for kind in (resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        resource.setrlimit(kind, (0, 0))
    seal.close()


class _Call:
    """A call under way."""

    def __init__(self, number: int, pid: int, until: float) -> None:
        self.number = number
        self.pid = pid
        self.until = until  # monotonic
        self.how = ""


def _serve(control: socket.socket, seal: Seal, base: int) -> None:
    calls: dict[int, _Call] = {}  # by the descriptor that tells its end
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        next_end = min((call.until for call in calls.values() if not call.how), default=None)
        wait = None if next_end is None else max(0.0, next_end - time.monotonic()) * 1000 + 1
        for descriptor, _ in poll.poll(wait):
            if descriptor != control.fileno():
                poll.unregister(descriptor)
                _ended(control, descriptor, calls.pop(descriptor))
                continue
            data, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
            if not data:
                return  # the engine has gone, and with this process all calls
            asked = json.loads(data)
            call = _begin(control, descriptors[0], asked["call"], asked["seconds"], seal, base)
            ends = os.pidfd_open(call.pid)
            calls[ends] = call
            poll.register(ends, select.POLLIN)
        for call in calls.values():
            if not call.how and call.until <= time.monotonic():
                call.how = "time"
                os.kill(call.pid, signal.SIGKILL)


def _begin(control: socket.socket, mine: int, number: int, seconds: float, seal: Seal, base: int) -> _Call:
    server, until = os.getpid(), time.monotonic() + seconds
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            os.dup2(mine, 0)
            os.closerange(1, 256)
            sys.stdin = sys.stdout = sys.stderr = None
            _limit(seal, base, seconds, server)
            _write(run(_read()))
        finally:
            os._exit(0)
    os.close(mine)
    return _Call(number, pid, until)


def _ended(control: socket.socket, ends: int, call: _Call) -> None:
    os.close(ends)
    _, status = os.waitpid(call.pid, 0)
    how = call.how or (f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "exit")
    control.send(json.dumps({"call": call.number, "how": how}).encode())


# -- in the sealed process -----------------------------------------------------------------------------------------------


def _read() -> dict[str, Any]:
    (length,) = LENGTH.unpack(_exactly(LENGTH.size))
    told: dict[str, Any] = json.loads(_exactly(min(length, MOST_BYTES)))
    return told


def _exactly(count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        piece = os.read(0, count - len(parts))
        if not piece:
            os._exit(1)
        parts += piece
    return bytes(parts)


def _write(told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    if len(body) > MOST_BYTES:
        body = json.dumps({"error": {"type": "", "message": "what it gives is too long", "line": 0}}).encode()
    data = memoryview(LENGTH.pack(len(body)) + body)
    while data:
        data = data[os.write(0, data) :]


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """Reads the code and calls its function, or looks whether it has those that are named; `{"text"}` or `{"error"}`."""
    space: dict[str, Any] = {"__name__": "processing", "__builtins__": builtins}
    try:
        exec(compile(asked["source"], _FILE, "exec", dont_inherit=True), space)  # noqa: S102 - what this process is for
        for name in asked.get("names", ()):
            if not callable(space.get(name)):
                return {"error": {"type": "", "message": f"it has no function {name!r}", "line": 0}}
        if "text" not in asked:
            return {"text": ""}
        text = space[asked["function"]](asked["text"])
    except BaseException as error:  # noqa: BLE001 - the call ends here, whatever the code raised
        return {"error": _told(error)}
    if not isinstance(text, str):
        words = f"{asked['function']}() gives {type(text).__name__}, not str"
        return {"error": {"type": "", "message": words, "line": 0}}
    return {"text": text}


def _told(error: BaseException) -> dict[str, Any]:
    line = _line(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename == _FILE:
        line = error.lineno or 0
    try:
        words = str(error)[:_MOST_WORDS]
    except BaseException:  # noqa: BLE001 - an exception of the code's own making may not even have words
        words = ""
    return {"type": type(error).__name__[:100], "message": words, "line": line}


def _line(trace: TracebackType | None) -> int:
    return next((at for frame, at in reversed(list(traceback.walk_tb(trace))) if frame.f_code.co_filename == _FILE), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
