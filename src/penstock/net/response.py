"""The answer of another server, read piece by piece, and the connection that it comes over.

The two are one state machine, which is why they stand in one file and it is longer than most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httptools

from penstock.core.errors import PenstockError, UpstreamFailed
from penstock.net.fiber import Wakeup
from penstock.net.plain import whole_chunks

if TYPE_CHECKING:
    from penstock.net.client import Pool

Sink = Callable[[bytes, bytes], bool]
HIGH_WATER_BYTES = 65536  # unread bytes beyond which the other server has to wait
MAX_HEAD_BYTES = 65536
_VERSIONS = frozenset({"1.0", "1.1"})
_HEAD, _LENGTH, _CHUNKS, _PARSED = range(4)  # what comes next, and who reads it
_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Response:
    """One answer.

    Attributes:
        status: the HTTP status.
        headers: values by lower-case name; of repeated fields the last.
        complete: all of the body has been received, though maybe not yet read.
    """

    __slots__ = (
        "_connection", "_failure", "_left", "_more", "_pieces", "_raised", "_sink", "_size", "_waiter", "complete", "headers", "status",
    )  # fmt: skip

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._failure: PenstockError | None = None
        self._waiter: Wakeup | None = None
        self._sink: Sink | None = None
        self._more = True  # the sink wants it
        self._raised: Exception | None = None  # by the sink
        self._left = False  # nobody reads on
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = False

    def header(self, name: bytes) -> bytes | None:
        """The value of the field `name`, which is given in lower case; None if it was not sent."""
        return self.headers.get(name)

    async def opened(self) -> None:
        """Returns when status and header fields are there.

        Raises:
            UpstreamFailed: if they will not come.
            UpstreamTimeout: if they did not come in time.
        """
        while not self.status:
            if self._failure is not None:
                raise self._failure
            self._waiter = waiter = Wakeup(self._connection.loop)
            await waiter

    async def piece(self) -> bytes:
        """All that has come since the last call, waiting if it is nothing; b"" at the end of the body.

        Raises:
            UpstreamFailed: if the connection broke before the end.
            UpstreamTimeout: if nothing came within the stall timeout.
        """
        while not self._pieces:
            if self.complete:
                return b""
            if self._failure is not None:
                raise self._failure
            self._waiter = waiter = Wakeup(self._connection.loop)
            await waiter
        return self._take()

    async def begun(self) -> None:
        """Returns when some of the body is there, or all of it; nothing is taken.

        Raises:
            UpstreamFailed: if the connection broke before.
            UpstreamTimeout: if nothing came in time.
        """
        while not self._pieces and not self.complete:
            if self._failure is not None:
                raise self._failure
            self._waiter = waiter = Wakeup(self._connection.loop)
            await waiter

    async def flow(self, sink: Sink) -> bool:
        """Hands the body to `sink` as it comes, without a task switch between, until `sink` answers False or the body ends.

        Beside each piece `sink` is given the same piece as it was framed on the wire, if it came in whole chunks; else b"".

        Returns:
            Whether the body has ended.

        Raises:
            UpstreamFailed: if the connection broke before the end.
            UpstreamTimeout: if nothing came within the stall timeout.
            Exception: what `sink` raised.
        """
        while True:
            if self._pieces and not sink(self._take(), b""):
                return False
            if self.complete:
                return True
            if self._failure is not None:
                raise self._failure
            self._sink, self._more = sink, True
            self._waiter = waiter = Wakeup(self._connection.loop)
            try:
                await waiter
            finally:
                self._sink = None
            if self._raised is not None:
                raised, self._raised = self._raised, None
                raise raised
            if not self._more:
                return False

    async def read(self, limit: int = 67108864) -> bytes:
        """The whole body.

        Raises:
            UpstreamFailed: if the connection broke before the end, or the body is longer than `limit` bytes.
            UpstreamTimeout: if nothing came within the stall timeout.
        """
        if self.complete and self._size <= limit:
            return self._take()
        pieces: list[bytes] = []
        size = 0
        while piece := await self.piece():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                self.abort()
                raise UpstreamFailed(f"The answer is longer than {limit} bytes.")
        return b"".join(pieces)

    def abort(self) -> None:
        """Gives the answer up. Unless it is complete, or was left, the connection closes, which tells the other server to stop."""
        if not self.complete and not self._left:
            self._connection.abort()

    def leave(self) -> None:
        """Nothing more is wanted of the body, which is about to end: the connection is kept if it does so within a second."""
        if not self.complete and self._failure is None:
            self._left = True
            self._connection.expect_end()

    # -- for the connection ------------------------------------------------------------------------------------------

    def add(self, data: bytes) -> int:
        """Keeps a piece; how many bytes are unread now."""
        self._pieces.append(data)
        self._size += len(data)
        return self._size

    def begin(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The head is there; who waits for it is woken by what follows."""
        self.status = status
        self.headers = headers

    def deliver(self, data: bytes, framed: bytes) -> None:
        """A piece for the sink, if one waits, and as it was framed; else it is kept."""
        sink = self._sink
        if sink is None or self._pieces:
            if self.add(data) > HIGH_WATER_BYTES:
                self._connection.pause()
            if sink is not None or self._waiter is not None:
                self.wake()
            return
        try:
            if sink(data, framed):
                return
        except (ValueError, RecursionError, PenstockError) as error:
            self._raised = error
        self._more = False
        self._go_on()

    def wake(self) -> None:
        """Something has changed: the sink gets what has come, or whoever waits looks again."""
        sink = self._sink
        if sink is not None:
            if self._pieces:
                try:
                    self._more = sink(self._take(), b"")
                except (ValueError, RecursionError, PenstockError) as error:
                    self._raised = error
                    self._more = False
            if self._more and not self.complete and self._failure is None:
                return
        self._go_on()

    def fail(self, failure: PenstockError) -> None:
        """The rest will not come."""
        self._failure = failure
        self.wake()

    def _go_on(self) -> None:
        self._sink = None
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.happen()

    def _take(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        if self._size > HIGH_WATER_BYTES and not self.complete:  # else the connection may be another answer's by now
            self._connection.resume()
        self._size = 0
        return data


class UpstreamConnection:  # an `asyncio.Protocol` in all but descent, which compiled classes cannot have
    """One connection to an origin: idle in its pool, or busy with one response."""

    __slots__ = (
        "_delimited", "_finished", "_handed", "_head_bytes", "_headers", "_heard", "_keep", "_left", "_missing", "_mode", "_parser", "_paused",
        "_paused_ns", "_pool", "_reader", "_response", "_stall_ns", "_transport", "deadline", "idle_since", "latest", "loop", "received", "used",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.loop = pool.loop
        self._pool = pool
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._headers: dict[bytes, bytes] = {}
        self._reader = pool.reader
        self._mode = _HEAD
        self._missing = 0  # of a body whose length is known
        self._handed = False  # the parser is to be given a head of our own
        self._head_bytes = 0
        self._heard = False  # since time was looked at last
        self._stall_ns = 0
        self._paused = False
        self._finished = False
        self._keep = False
        self._left = False  # the current response is not read any more
        self._delimited = False  # the end of the connection is the end of the body
        self.deadline = 0  # monotonic nanoseconds
        self.latest = 0  # of the whole answer
        self._paused_ns = 0
        self.idle_since = 0
        self.received = False  # whether any byte of the current response has come
        self.used = False  # whether a response has come over it before

    @property
    def usable(self) -> bool:
        """Whether a request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, data: bytes, first_byte_ns: int, stall_ns: int, answer_ns: int) -> Response:
        """Sends one request, head and body; its response fills up from now on, and takes `answer_ns` at most."""
        response = self._response = Response(self)
        self.received = False
        self._mode = _HEAD
        self._finished = False
        self._left = False
        self._delimited = False
        self._head_bytes = 0
        self._stall_ns = stall_ns
        self._heard = False
        now = time.monotonic_ns()
        self.deadline = now + first_byte_ns
        self.latest = now + answer_ns
        if self._transport is None:
            response.fail(UpstreamFailed("The engine closed the connection without an answer.", code="upstream_closed"))
        else:
            self._transport.write(data)
        return response

    def resume(self) -> None:
        """The reader has caught up."""
        if self._paused:
            self._paused = False
            now = time.monotonic_ns()
            self.deadline = now + self._stall_ns
            self.latest += now - self._paused_ns
            if self._transport is not None:
                self._transport.resume_reading()

    def pause(self) -> None:
        """The reader is behind."""
        if self._left:  # there is none
            self.abort()
        elif not self._paused and self._transport is not None:
            self._paused = True
            self._paused_ns = time.monotonic_ns()
            self._transport.pause_reading()

    def expect_end(self) -> None:
        """The response is not read any more; it has a second to end."""
        self.resume()
        self._left = True
        self.latest = min(self.latest, time.monotonic_ns() + 1_000_000_000)

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def fail(self, failure: PenstockError) -> None:
        """Gives the current response up for the reason `failure`."""
        response, self._response = self._response, None
        self._pool.drop(self)
        self.abort()
        if response is not None and not response.complete:
            response.fail(failure)

    def expire(self, now: int) -> bool:
        """Whether the other server has taken too long; asked at short intervals. A reader that is slow itself does not count against it."""
        if self._heard:
            self._heard = False
            self.deadline = now + self._stall_ns
        return self._response is not None and not self._paused and (now > self.deadline or now > self.latest)

    # -- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: of a body that goes on until it, or of a response that breaks off."""
        self._transport = None
        response, self._response = self._response, None
        self._pool.drop(self)
        if response is None or response.complete:
            return
        if self._delimited and response.status and exc is None:
            response.complete = True
            response.wake()
        elif not self.received:
            response.fail(UpstreamFailed("The engine closed the connection without an answer.", code="upstream_closed"))
        else:
            response.fail(UpstreamFailed("The engine broke off its answer.", code="upstream_truncated"))

    def pause_writing(self) -> None:
        """The other server reads slowly; its timeouts see to that."""

    def resume_writing(self) -> None:
        """The other server has caught up."""

    def eof_received(self) -> bool:
        """The transport closes."""
        return False

    def data_received(self, data: bytes) -> None:
        """Reads what is plain, and leaves all else to the parser."""
        response = self._response
        if response is None:  # nobody asked
            self._pool.drop(self)
            self.abort()
            return
        self.received = True
        mode = self._mode
        if mode == _CHUNKS:
            self._take_chunks(response, data)
        elif mode == _PARSED:
            self._parse(response, data)
        elif mode == _HEAD:
            self._take_head(response, data)
        else:
            self._take_length(response, data)

    def _take_head(self, response: Response, data: bytes) -> None:
        found = self._reader.answer(data, MAX_HEAD_BYTES)
        if found is None:
            self._mode = _PARSED
            self._parse(response, data)
            return
        status, headers, size, length = found
        response.begin(status, headers)
        if length >= 0:
            self._missing = length
            self._mode = _LENGTH
            self._take_length(response, data[size:])
            return
        self._mode = _CHUNKS
        if len(data) > size:
            self._take_chunks(response, data[size:])
        else:
            self._heard = True
            response.wake()

    def _take_length(self, response: Response, data: bytes) -> None:
        missing = self._missing
        size = len(data)
        if size >= missing:
            if missing:
                response.add(data if size == missing else data[:missing])
            self._end(response, keep=size == missing)
            return
        self._missing = missing - size
        self._heard = True
        if size:
            response.deliver(data, b"")
        else:
            response.wake()

    def _take_chunks(self, response: Response, data: bytes) -> None:
        found = whole_chunks(data)
        if found is None:
            # From here on the parser reads the chunks; that it needs a head to begin with is all that this one is for.
            self._mode = _PARSED
            self._delimited = False
            self._handed = True
            self._parse(response, _CHUNKED + data)
            return
        pieces, ended = found
        payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if ended:  # its reader finds it complete, and the connection at rest
            if pieces:
                response.add(payload)
            self._end(response, keep=True)
            return
        self._heard = True
        if pieces:
            response.deliver(payload, data)

    def _end(self, response: Response, *, keep: bool) -> None:
        """The whole answer has been read."""
        self._response = None
        response.complete = True
        self.resume()
        if keep:
            self.used = True
            self._pool.release(self)
        else:
            self._pool.drop(self)
            self.abort()
        response.wake()

    def _parse(self, response: Response, data: bytes) -> None:
        """Feeds the parser and wakes the reader once, however many pieces there were."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._finished:  # a whole answer, and rubbish behind it
                self._keep = False
            else:
                self.fail(UpstreamFailed(f"The engine does not answer in HTTP: {error}.", code="upstream_garbage"))
                return
        if self._finished:
            self._finished = False
            self._end(response, keep=self._keep)
        else:
            response.wake()

    # -- parser ------------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field has been read."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head is too long")
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head has been read; interim ones (1xx) are passed over."""
        headers, self._headers = self._headers, {}
        status = self._parser.get_status_code()
        response = self._response
        if self._handed:
            self._handed = False
            self._keep = True
            return
        if status < 200:
            return
        if self._parser.get_http_version() not in _VERSIONS:
            raise ValueError("a version of HTTP that is not spoken")
        if response is None or self._finished:
            raise ValueError("an answer that nobody asked for")
        response.begin(status, headers)
        self._keep = self._parser.should_keep_alive()
        self._delimited = (
            b"content-length" not in headers and b"transfer-encoding" not in headers and status not in {204, 304}
        )

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        response = self._response
        if response is None:
            return
        self._heard = True
        if response.add(data) > HIGH_WATER_BYTES:
            self.pause()

    def on_message_complete(self) -> None:
        """The body has been read."""
        if self._response is not None and self._response.status:
            self._finished = True
        self._headers = {}  # trailers are of no use here
