"""A version's own Python code, called in a process of its own that the kernel has sealed (`code_child`): text in, text out, or an error that says why."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.errors import Damaged, RateLimited, UpstreamFailed
from penstock.engine.code_child import LENGTH, MOST_BYTES
from penstock.engine.stats import Stats
from penstock.registry.processing import CODE, Python

_log = logging.getLogger("penstock.engine")
_CHILD = Path(__file__).with_name("code_child.py")
_PATIENCE_S = 20.0  # until the fork server answers
_GRACE_S = 10.0  # beyond a call's own time, until the fork server is taken for dead
_LOAD_S = 5.0
_DATAGRAM = 65536


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    message: str = ""
    line: int = 0


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    text: str = ""
    error: _Error | None = None


class OwnCode:
    """The code of one version, ready to be called while its fork server lives; one that dies is replaced at the next call.

    Args:
        source: `processing.py`.
        stats: where calls are counted.
        together: calls that run at a time.
        max_waiting: calls that may wait beyond those.
    """

    def __init__(self, source: str, stats: Stats, *, max_waiting: int, together: int | None = None) -> None:
        self._source = source
        self._stats = stats
        self._places = asyncio.Semaphore(together or min(8, os.cpu_count() or 1))
        self._max_waiting = max_waiting
        self._waiting = 0
        self._last = 0
        self._server: _ForkServer | None = None
        self._starting = asyncio.Lock()

    async def start(self, steps: tuple[Python, ...]) -> None:
        """Starts the fork server and sees that the code can be read and has the functions of `steps`.

        Raises:
            Damaged: if not, or if this machine cannot seal a process.
        """
        names = sorted({step.function for step in steps})
        try:
            await self._ask({"names": names}, "", _LOAD_S)
        except UpstreamFailed as error:
            raise Damaged(error.message, param=CODE) from None

    async def call(self, step: Python, text: str) -> str:
        """What the function of `step` makes of `text`.

        Raises:
            UpstreamFailed: `processing_failed` if it raises or gives no text, `processing_killed` if it takes too long or its process dies.
            RateLimited: if too many wait already.
            Damaged: if this machine cannot seal a process any more.
        """
        if self._waiting >= self._max_waiting:
            raise RateLimited(
                "Too many texts wait to be processed; try again later.", code="queue_full", retry_after=1.0
            )
        self._waiting += 1
        begun = time.monotonic()
        outcome = "killed"
        try:
            async with self._places:
                made = await self._ask({"function": step.function, "text": text}, f"{step.function}: ", step.seconds)
            outcome = "done"
        except UpstreamFailed as error:
            outcome = "raised" if error.code == "processing_failed" else "killed"
            raise
        except asyncio.CancelledError:
            outcome = "abort"
            raise
        finally:
            self._waiting -= 1
            self._stats.code_calls[outcome] += 1
            self._stats.code_seconds.observe(time.monotonic() - begun)
        return made

    async def stop(self) -> None:
        """Ends the fork server, and with it all calls."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def _ask(self, what: dict[str, Any], who: str, seconds: float) -> str:
        server = await self._serving()
        self._last += 1
        body = json.dumps({"source": self._source, **what}).encode()
        raw, how = await server.call(self._last, body, seconds)
        reply = _read(raw) if how != "time" else None
        if reply is None:
            raise UpstreamFailed(
                f"The version's {CODE}: {who}{_ended(how, seconds)}.", code="processing_killed", param=CODE
            )
        if reply.error is not None:
            error = reply.error
            said = ": ".join(part for part in (error.type, error.message) if part)
            where = f" (line {error.line})" if error.line else ""
            raise UpstreamFailed(f"The version's {CODE}: {who}{said}{where}.", code="processing_failed", param=CODE)
        return reply.text

    async def _serving(self) -> "_ForkServer":
        async with self._starting:
            if self._server is None or not self._server.alive:
                if self._server is not None:
                    _log.error("the process for the version's own code died; another one is started")
                    await self._server.stop()
                server = _ForkServer()
                self._server = server
                await server.start()
            return self._server


def _ended(how: str, seconds: float) -> str:
    if how == "time":
        return f"it took longer than {seconds:g} s"
    if how == "signal 24":
        return "it took too much of the processor's time"
    return "its process died" + (f" by {how}" if how.startswith("signal") else "")


def _read(raw: bytes) -> _Reply | None:
    """The reply; None if there is none that is whole."""
    if len(raw) < LENGTH.size or len(raw) != LENGTH.size + LENGTH.unpack_from(raw)[0]:
        return None
    try:
        # The standard library's reader takes lone surrogates, which the code may give; they are refused here, by name.
        reply = msgspec.convert(json.loads(raw[LENGTH.size :]), _Reply)
        reply.text.encode()
    except UnicodeEncodeError:
        return _Reply(error=_Error(message="it gives what is no Unicode text"))
    except (ValueError, RecursionError, msgspec.ValidationError):
        return None
    return reply


class _ForkServer:
    """One fork server and the socket to it."""

    def __init__(self) -> None:
        self.alive = False
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls: dict[int, asyncio.Future[str]] = {}

    async def start(self) -> None:
        """Starts it.

        Raises:
            Damaged: if it cannot be had, or cannot seal a process.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        ours.setblocking(False)
        try:
            # Its folder is gone as soon as it stands in it.
            with theirs, tempfile.TemporaryDirectory(prefix="penstock-code-") as folder:
                told = await self._begun(ours, theirs, folder)
        except OSError as error:
            told = {"why": f"no process can be started ({error.strerror or error})"}
        if not told.get("ready"):
            await self.stop()
            raise Damaged(
                f"This machine cannot hold a version's own code: {told.get('why')}. It takes Linux with seccomp, on x86-64 or arm64.",
                code="no_seal",
            )
        self.alive = True

    async def _begun(self, ours: socket.socket, theirs: socket.socket, folder: str) -> dict[str, Any]:
        command = [sys.executable, "-P", "-s", "-S", "-B", str(_CHILD), str(theirs.fileno()), str(os.getpid())]
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - a fork and no more
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0"},  # a fixed order of sets: one digest gives one answer
        )
        theirs.close()
        asyncio.get_running_loop().add_reader(ours, self._hear)
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), _PATIENCE_S)
        except TimeoutError:
            return {"why": "the process does not answer"}

    async def call(self, number: int, body: bytes, seconds: float) -> tuple[bytes, str]:
        """What a call of this number writes, and how it ended: `exit`, `signal N` or `time`."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ended: asyncio.Future[str] = loop.create_future()
        self._calls[number] = ended
        with ours:
            ours.setblocking(False)
            with theirs:
                if not self._send({"call": number, "seconds": seconds}, theirs.fileno()):
                    self._calls.pop(number, None)
                    return b"", "the process is gone"
            try:
                async with asyncio.timeout(seconds + _GRACE_S):
                    try:
                        await loop.sock_sendall(ours, LENGTH.pack(len(body)) + body)
                        raw = await _all_of(ours)
                    except OSError:  # it ended before it had read
                        raw = b""
                    return raw, await ended
            except TimeoutError:
                self._lost()  # the fork server itself hangs
                return b"", "time"
            finally:
                self._calls.pop(number, None)

    async def stop(self) -> None:
        """Ends it; its calls die with it."""
        self._lost()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    def _send(self, told: dict[str, Any], descriptor: int) -> bool:
        if self._control is None:
            return False
        try:
            socket.send_fds(self._control, [json.dumps(told).encode()], [descriptor])
        except OSError:
            self._lost()
            return False
        return True

    def _hear(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        told = json.loads(data)
        if "call" in told:
            ended = self._calls.get(told["call"])
            if ended is not None and not ended.done():
                ended.set_result(told["how"])
        elif not self._ready.done():
            self._ready.set_result(told)

    def _lost(self) -> None:
        self.alive = False
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control)
            control.close()
        if not self._ready.done():
            self._ready.set_result({"ready": False, "why": "the process died"})
        for ended in self._calls.values():
            if not ended.done():
                ended.set_result("the process is gone")


async def _all_of(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    parts = bytearray()
    while len(parts) <= MOST_BYTES + LENGTH.size:
        piece = await loop.sock_recv(sock, 1 << 18)
        if not piece:
            break
        parts += piece
    return bytes(parts)
