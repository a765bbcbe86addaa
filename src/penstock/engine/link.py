"""The front's end of the worker: starting it, speaking to it, noticing its death."""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec

from penstock.engine.messages import FrameReader, ToFront, ToWorker, frame

_log = logging.getLogger("penstock.engine")


class Link(asyncio.Protocol):
    """One worker process and the socket to it. It is used once: a new worker is a new link.

    Args:
        hear: called with all messages that came in one piece, in order.
        lost: called once when the worker has gone, however it went.
    """

    def __init__(self, hear: Callable[[list[ToFront]], None], lost: Callable[[], None]) -> None:
        self._hear = hear
        self._lost = lost
        self._reader = FrameReader()
        self._decode = msgspec.msgpack.Decoder[ToFront](ToFront).decode
        self._transport: asyncio.WriteTransport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.heard = 0  # how often it has said something

    @property
    def pid(self) -> int:
        """The worker's process id; 0 before it is started."""
        return self._process.pid if self._process else 0

    async def open(self) -> None:
        """Starts the worker.

        Raises:
            OSError: if no process can be had.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            command = [sys.executable, "-P", "-m", "penstock.engine.worker", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: ASYNC220, S603 - a fork and no more
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)

    def say(self, message: ToWorker) -> None:
        """Sends `message`; to a worker that has gone, nothing."""
        if self._transport is not None:
            self._transport.write(frame(message))

    def kill(self) -> None:
        """Ends the worker at once; `lost` is called when it has gone."""
        if self._process is not None:
            self._process.kill()

    async def close(self, patience_s: float = 5.0) -> None:
        """Ends the worker, which is killed if it takes longer than `patience_s`; returns when it is gone."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        process = self._process
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """The worker has said something."""
        self.heard += 1
        bodies = self._reader.feed(data)
        if bodies:
            self._hear([self._decode(body) for body in bodies])

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has gone."""
        self._transport = None
        self._lost()
