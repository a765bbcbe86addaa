"""A pooled HTTP/1.1 client: keep-alive connections per origin, timeouts, backpressure, abort."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import Any

from penstock.core.errors import Unavailable, UpstreamFailed, UpstreamTimeout
from penstock.net.origin import Origin, Timeouts, parse_origin
from penstock.net.plain import Reader
from penstock.net.reply import Headers, header_lines
from penstock.net.response import Response, UpstreamConnection

__all__ = ["Client", "Origin", "Response", "Timeouts", "parse_origin"]

_SWEEP_S = 0.05
_DEFAULTS = Timeouts()


class Pool:
    """The connections to one origin."""

    def __init__(self, origin: Origin, *, limit: int, idle_s: float) -> None:
        self.reader = Reader()
        self.loop = asyncio.get_running_loop()
        self.origin = origin
        self.busy: set[UpstreamConnection] = set()
        self.idle: list[UpstreamConnection] = []  # the last one given back is the first one taken
        self._limit = limit
        self._idle_ns = int(idle_s * 1e9)
        self._connecting = 0
        self._waiters: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._tls = ssl.create_default_context() if origin.tls else None

    def take_idle(self) -> UpstreamConnection | None:
        """An idle connection, marked busy, if there is one."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                self.busy.add(connection)
                return connection
        return None

    async def take(self, timeout_s: float) -> UpstreamConnection:
        """A new connection, marked busy; if there are too many already, the first that comes free.

        Raises:
            UpstreamFailed: if the server refuses.
            UpstreamTimeout: if it does not take the connection within `timeout_s`.
            Unavailable: if all connections stay busy for that time.
        """
        if len(self.busy) + self._connecting >= self._limit:
            given = await self._wait(timeout_s)
            if given is not None:
                return given
        return await self._connect(timeout_s)

    async def _wait(self, timeout_s: float) -> UpstreamConnection | None:
        waiter: asyncio.Future[UpstreamConnection | None] = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            if not waiter.cancelled():  # it was handed over in the same moment in which the asker gave up
                given = waiter.result()
                if given is None:
                    self._make_room()
                else:
                    self.release(given)
            if isinstance(error, TimeoutError):
                raise Unavailable(f"All {self._limit} connections to {self.origin} are busy.", retry_after=1) from None
            raise

    async def _connect(self, timeout_s: float) -> UpstreamConnection:
        origin = self.origin
        connection: UpstreamConnection
        made = False
        self._connecting += 1
        try:
            async with asyncio.timeout(timeout_s):
                if origin.unix:
                    _, connection = await self.loop.create_unix_connection(self._build, origin.unix)
                else:
                    _, connection = await self.loop.create_connection(
                        self._build, origin.host, origin.port, ssl=self._tls
                    )
            made = True
        except TimeoutError:
            raise UpstreamTimeout(
                f"{origin} took no connection within {timeout_s} s.", code="upstream_connect"
            ) from None
        except OSError as error:
            raise UpstreamFailed(
                f"{origin} takes no connection: {error.strerror or error}.", code="upstream_unreachable"
            ) from None
        finally:
            self._connecting -= 1
            if not made:
                self._make_room()
        self.busy.add(connection)
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """The connection's response is complete, and it may be used again."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self.busy.discard(connection)
        connection.idle_since = time.monotonic_ns()
        self.idle.append(connection)

    def drop(self, connection: UpstreamConnection) -> None:
        """The connection is of no use any more."""
        if connection in self.busy:
            self.busy.discard(connection)
            self._make_room()
        elif connection in self.idle:
            self.idle.remove(connection)

    def _make_room(self) -> None:
        """There is one connection fewer: who has waited longest may make another."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def check_time(self, now: int) -> None:
        """Fails what takes too long, closes what has been idle for too long."""
        for connection in [one for one in self.busy if one.expire(now)]:
            connection.fail(UpstreamTimeout(f"{self.origin} did not go on in time."))
        while self.idle and now - self.idle[0].idle_since > self._idle_ns:
            self.idle.pop(0).abort()

    @property
    def unused(self) -> bool:
        """Whether nothing is open and nobody waits."""
        return not (self.busy or self.idle or self._connecting or self._waiters)

    def close(self) -> None:
        """Closes all connections."""
        for connection in [*self.busy, *self.idle]:
            connection.abort()
        self.busy.clear()
        self.idle.clear()

    def _build(self) -> Any:
        return UpstreamConnection(self)


class Client:
    """Asks other servers. One per event loop; `close` it at the end.

    A request over a kept connection that the other side closed before sending anything is sent once more, over a new one.
    """

    def __init__(self, *, max_connections: int = 1024, idle_s: float = 30.0) -> None:
        """`max_connections` are for each origin; `idle_s` is how long an unused connection is kept."""
        self._max_connections = max_connections
        self._idle_s = idle_s
        self._pools: dict[str, Pool] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def request(
        self,
        origin: Origin,
        method: bytes,
        path: bytes,
        headers: Headers = (),
        body: bytes = b"",
        timeouts: Timeouts = _DEFAULTS,
        lines: bytes = b"",
    ) -> Response:
        """The response to one request, as soon as its head is there. `lines` are header fields that are encoded already.

        The caller reads the response to its end or calls its `abort`. Cancelling this call closes the connection.

        Raises:
            UpstreamFailed: if the server cannot be reached, closes without an answer, or does not speak HTTP.
            UpstreamTimeout: if it takes no connection or sends nothing in time.
            Unavailable: if all connections to it are busy.
        """
        pool = self._pools.get(origin.key)
        if pool is None:
            pool = self._open(origin)
        data = b"%b %b%b HTTP/1.1\r\n%b%b%bcontent-length: %d\r\n\r\n%b" % (
            method,
            origin.base,
            path,
            origin.host_line,
            lines,
            header_lines(headers) if headers else b"",
            len(body),
            body,
        )
        first, stall = int(timeouts.first_byte_s * 1e9), int(timeouts.stall_s * 1e9)
        answer = int(timeouts.answer_s * 1e9)
        fresh = False
        while True:
            connection = None if fresh else pool.take_idle()
            if connection is None:
                connection = await pool.take(timeouts.connect_s)
            used = connection.used
            response = connection.send(data, first, stall, answer)
            try:
                await response.opened()
            except UpstreamFailed:
                if not used or connection.received:
                    raise
                fresh = True
                continue
            except BaseException:
                connection.abort()
                raise
            return response

    def pool(self, origin: Origin) -> Pool:
        """The connections to `origin`."""
        return self._pools.get(origin.key) or self._open(origin)

    async def close(self) -> None:
        """Closes all connections; requests in flight fail."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        await asyncio.sleep(0)

    def forget(self, origin: Origin) -> None:
        """Closes the idle connections to an origin that is no longer wanted."""
        pool = self._pools.get(origin.key)
        if pool is not None:
            while pool.idle:
                pool.idle.pop().abort()

    def _open(self, origin: Origin) -> Pool:
        pool = self._pools[origin.key] = Pool(origin, limit=self._max_connections, idle_s=self._idle_s)
        if self._sweeper is None:
            self._sweeper = pool.loop.call_later(_SWEEP_S, self._sweep)
        return pool

    def _sweep(self) -> None:
        now = time.monotonic_ns()
        for key, pool in list(self._pools.items()):
            pool.check_time(now)
            if pool.unused:
                del self._pools[key]
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
