"""Our HTTP/1.1 server: one `asyncio.Protocol` and one task a connection, over llhttp."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.core.errors import PenstockError
from penstock.net.connection import Connection, Handler
from penstock.net.limits import ServerLimits
from penstock.net.listening import take_in
from penstock.net.plain import Reader
from penstock.net.refusal import Refusal, refusal_message
from penstock.net.reply import Reply
from penstock.net.request import Request
from penstock.net.tls import TlsConnection
from penstock.wire.openai import error_body, error_headers

if TYPE_CHECKING:
    from penstock.net.certificate import Certificate

__all__ = ["Handler", "Reply", "Request", "Server", "ServerLimits"]

_log = logging.getLogger("penstock.net")

_SLICE = 64  # connections whose time is looked at in one go, before requests have their turn again
_BREATH_S = 0.002


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
        tls_failures: handshakes that failed, or broke off later for what was no TLS.
        draining: no new work is taken.
    """

    def __init__(self, handler: Handler, *, limits: ServerLimits | None = None) -> None:
        self.limits = limits or ServerLimits()
        self.failures = 0
        self.refusals: dict[int, int] = {}
        self.tls_failures = 0
        self.draining = False
        self.date_line = b""
        self.full_message = b""
        self.reader = Reader()
        self._handler = handler
        self._connections: set[Connection] = set()
        self._refused: dict[Refusal, None] = {}  # over the limit: being told so, the oldest first
        self._listeners: list[
            Any
        ] = []  # `asyncio.Server`, or what uvloop has for it, whose `sockets` are of another type
        self._shared = False  # other processes listen on the same port
        self._unix_paths: list[Path] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._unswept: list[Connection] = []
        self._idle = asyncio.Event()
        bounds = self.limits
        times = (bounds.header_timeout_s, bounds.body_timeout_s, bounds.idle_timeout_s, bounds.write_timeout_s)
        self._sweep_s = max(0.02, min(0.5, min(times) / 4, bounds.linger_s / 4, bounds.grace_s / 3))

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
        certificate: Certificate | None = None,
    ) -> None:
        """Listens on `host`:`port`, or on `sock`, or on the Unix socket `unix` (mode 0600; a dead one is replaced).

        With a `certificate` it speaks TLS there. May be called more than once, to listen in several places.

        Raises:
            OSError: if the address cannot be had.
        """
        self._loop = asyncio.get_running_loop()
        connect: Any = self._connect if certificate is None else partial(self._connect_sealed, certificate)
        if unix is not None:
            listener = await self._loop.create_unix_server(connect, sock=_unix_socket(unix), backlog=backlog)
            self._unix_paths.append(unix)
        elif sock is not None:
            listener = await self._loop.create_server(connect, sock=sock, backlog=backlog)
        else:
            listener = await self._loop.create_server(
                connect, host, port, reuse_port=reuse_port or None, backlog=backlog
            )
        self._listeners.append(listener)
        self._shared = self._shared or reuse_port
        if self._sweeper is None:
            self._sweep()

    async def drain(self, timeout_s: float = 20.0) -> None:
        """Stops accepting, lets what is in flight finish for up to `timeout_s`, then ends what is left.

        Connections that the kernel has already taken are served. One that rests is closed, at once or, if it was in use a moment ago and
        its next request may be on the way, after `grace_s`.
        """
        self.draining = True
        socks = [sock for listener in self._listeners for sock in listener.sockets]
        await take_in(socks, self._shared, self.limits.grace_s)
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
        for refusal in list(self._refused):
            refusal.kill()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for path in self._unix_paths:
            path.unlink(missing_ok=True)
        self._listeners.clear()

    # -- for connections ---------------------------------------------------------------------------------------------

    def adopt(self, connection: Connection) -> None:
        """Takes a new connection in."""
        self._connections.add(connection)
        if self.draining:
            connection.shut()

    def refused(self, refusal: Refusal) -> None:
        """A connection is being told that there is no room. Should too many linger, the oldest has been told for longest."""
        self._refused[refusal] = None
        if len(self._refused) > self.limits.max_refused:
            next(iter(self._refused)).kill()

    def forget_refused(self, refusal: Refusal) -> None:
        """It has ended."""
        self._refused.pop(refusal, None)

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
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

    def _connect(self) -> Connection | Refusal:
        if len(self._connections) >= self.limits.max_connections:
            return Refusal(self, silent=False)
        return Connection(self)

    def _connect_sealed(self, certificate: Certificate) -> TlsConnection | Refusal:
        if len(self._connections) >= self.limits.max_connections:
            return Refusal(self, silent=True)
        return TlsConnection(self, Connection(self), certificate.context)

    def _sweep(self) -> None:
        """Looks at everybody's time, in slices: thousands of connections must not hold up a request."""
        now = time.monotonic_ns()
        if not self._unswept:
            self.date_line = b"date: %b\r\n" % formatdate(usegmt=True).encode()
            self.full_message = refusal_message(self.date_line)
            self._unswept = list(self._connections)
            late = now - int(self.limits.linger_s * 1e9)
            for refusal in [one for one in self._refused if one.since < late]:
                refusal.kill()
        rest = self._unswept
        self._unswept = rest[_SLICE:]
        for connection in rest[:_SLICE]:
            connection.check_time(now)
        self._sweeper = self._loop.call_later(_BREATH_S if self._unswept else self._sweep_s, self._sweep)
