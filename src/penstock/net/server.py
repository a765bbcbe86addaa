"""Our HTTP/1.1 server: one `asyncio.Protocol` and one task a connection, over llhttp."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from email.utils import formatdate
from pathlib import Path

from penstock.core.errors import PenstockError
from penstock.net.connection import Connection, Handler
from penstock.net.limits import ServerLimits
from penstock.net.plain import Reader
from penstock.net.reply import Reply
from penstock.net.request import Request
from penstock.wire.openai import error_body, error_headers

__all__ = ["Handler", "Reply", "Request", "Server", "ServerLimits"]

_log = logging.getLogger("penstock.net")


class HandlerBroke(PenstockError):
    """The handler failed in a way that nobody foresaw."""

    default_code = "internal_error"


def _unix_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
    except OSError:
        sock.close()
        raise
    return sock


class Server:
    """Serves `handler` on sockets of one event loop.

    The handler runs once for each request, for those of one connection one after the other, and is cancelled when the
    client leaves, unless it called `reply.shielded()`. A `PenstockError` that it raises becomes the reply, in the OpenAI error shape; any other
    exception becomes a 500, is logged and counted in `failures`.

    Attributes:
        failures: unforeseen exceptions of handlers so far.
        refusals: requests and connections refused before a handler saw them, by HTTP status.
        draining: no new work is taken.
    """

    def __init__(self, handler: Handler, *, limits: ServerLimits | None = None) -> None:
        self.limits = limits or ServerLimits()
        self.failures = 0
        self.refusals: dict[int, int] = {}
        self.draining = False
        self.date_line = b""
        self.reader = Reader()
        self._handler = handler
        self._connections: set[Connection] = set()
        self._refused: set[Connection] = set()  # over the limit: being told so
        self._listeners: list[asyncio.Server] = []
        self._unix: list[Path] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        times = (self.limits.header_timeout_s, self.limits.body_timeout_s, self.limits.idle_timeout_s)
        self._sweep_s = max(0.02, min(0.5, self.limits.write_timeout_s / 4, self.limits.linger_s / 4, min(times) / 4))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the server was started on."""
        return self._loop

    @property
    def port(self) -> int:
        """The TCP port that is listened on.

        Raises:
            RuntimeError: if the server listens on no TCP port.
        """
        for listener in self._listeners:
            for sock in listener.sockets:
                if sock.family in {socket.AF_INET, socket.AF_INET6}:
                    return int(sock.getsockname()[1])
        raise RuntimeError("the server listens on no TCP port")

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        reuse_port: bool = False,
        backlog: int = 4096,
        sock: socket.socket | None = None,
        unix: Path | None = None,
    ) -> None:
        """Listens on `host`:`port`, or on `sock`, or on the Unix socket `unix` (mode 0600; a dead one is replaced).

        May be called more than once, to listen in several places.

        Raises:
            OSError: if the address cannot be had.
        """
        self._loop = asyncio.get_running_loop()
        if unix is not None:
            listener = await self._loop.create_unix_server(self._connect, sock=_unix_socket(unix), backlog=backlog)
            self._unix.append(unix)
        elif sock is not None:
            listener = await self._loop.create_server(self._connect, sock=sock, backlog=backlog)
        else:
            listener = await self._loop.create_server(
                self._connect, host, port, reuse_port=reuse_port or None, backlog=backlog
            )
        self._listeners.append(listener)
        if self._sweeper is None:
            self._sweep()

    async def drain(self, timeout_s: float = 20.0) -> None:
        """Stops accepting, lets what is in flight finish for up to `timeout_s`, then ends what is left."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.shut()
        if self._connections:
            self._idle.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.kill()
        for connection in list(self._refused):
            connection.kill()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for path in self._unix:
            path.unlink(missing_ok=True)
        self._listeners.clear()

    # -- for connections ---------------------------------------------------------------------------------------------

    def adopt(self, connection: Connection) -> bool:
        """Takes a new connection in; False if there are too many."""
        if len(self._connections) >= self.limits.max_connections or self.draining:
            if len(self._refused) >= self.limits.max_connections:
                connection.kill()
            else:
                self._refused.add(connection)
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self._refused.discard(connection)
        if not self._connections:
            self._idle.set()

    def count_refusal(self, error: PenstockError) -> None:
        """A request was refused before any handler saw it."""
        self.refusals[error.status] = self.refusals.get(error.status, 0) + 1

    async def serve(self, request: Request, reply: Reply) -> None:
        """Runs the handler and sees to it that the reply ends, whatever the handler does."""
        try:
            await self._handler(request, reply)
        except PenstockError as error:
            self._fail(reply, error)
        except asyncio.CancelledError:
            reply.abort()
            raise
        except Exception as error:  # noqa: BLE001 - the task ends here, and the failure is counted
            self.failures += 1
            _log.exception("the handler of %s %s failed", request.method, request.path, exc_info=error)
            self._fail(reply, HandlerBroke("Something broke inside the server; the request was not answered."))
        if not reply.finished and not reply.promised:
            reply.abort()

    @staticmethod
    def _fail(reply: Reply, error: PenstockError) -> None:
        if reply.started:
            reply.abort()
        else:
            reply.send(error.status, error_headers(error), error_body(error))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        return Connection(self)

    def _sweep(self) -> None:
        self.date_line = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        now = time.monotonic_ns()
        for connection in list(self._connections):
            connection.check_time(now)
        for connection in list(self._refused):
            connection.check_time(now)
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
