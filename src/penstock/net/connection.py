"""One client connection of the server: bytes to requests, requests to the handler in order, replies back.

It is one class with one state, and longer than most files for that reason.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httptools

from penstock.core.errors import (
    BadRequest,
    ExpectationFailed,
    PenstockError,
    RequestTimeout,
)
from penstock.net.fiber import Fiber
from penstock.net.head import body_too_large, check_head, check_trailer, header_too_large, not_http, origin_form
from penstock.net.reply import STATUS_LINES, Reply, header_lines
from penstock.net.request import Request
from penstock.wire.openai import error_body, error_headers

if TYPE_CHECKING:
    from penstock.net.server import Server

Handler = Callable[[Request, Reply], Awaitable[None]]

IDLE, HEAD, BODY = 0, 1, 2


def _unsent_by_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has taken and the other side has not acknowledged."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        told = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # it has just been closed
        return 0
    return int.from_bytes(told, sys.byteorder)


class Connection:  # an `asyncio.Protocol` in all but descent, which compiled classes cannot have
    """Parses with llhttp, in its strict mode. One handler task at a time: replies keep the order of the requests."""

    __slots__ = (
        "_body", "_body_bytes", "_deaf", "_expects", "_fiber", "_field_bytes", "_fields", "_head_bytes", "_headers", "_lingers", "_loop", "_missing", "_parser",
        "_peer", "_phase", "_queue", "_raw_bytes", "_reading_paused", "_received", "_refusal", "_reply", "_request", "_resumed",
        "_server", "_since", "_target", "_transport", "_unsent", "_waiter", "closing", "keep_alive_line",
        "write_paused",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._phase = IDLE
        self._since = time.monotonic_ns()  # when the phase began
        self._received = 0
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0  # read since the head began, whole or not
        self._field_bytes = 0  # of the fields that are whole
        self._fields = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._request: Request | None = None  # whose body is being read
        self._queue: deque[Request] = deque()
        self._reply: Reply | None = None  # that is being given
        self._fiber: Fiber | None = None  # that serves the request, or served the last one
        self._waiter: asyncio.Future[None] | None = None
        self._expects = False
        self._deaf = False  # nothing more is taken from this client
        self._refusal: PenstockError | None = None  # to be told when what came before has been answered
        self._resumed: Request | None = None  # whose offer to change the protocol was not taken
        self._lingers = False
        self._reading_paused = False
        self._peer = ""
        self._raw_bytes = 0
        self._missing = 0  # of the body of a request whose head was plain
        self._unsent = -1  # when the client was last found slow
        self.closing = False
        self.write_paused = False
        self.keep_alive_line = b""

    # -- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Registers the connection."""
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._server.adopt(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left: the running handler is cancelled, waiting requests are forgotten."""
        self._server.forget(self)
        self._queue.clear()
        self.closing = True
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        reply = self._reply
        if reply is not None:
            reply.gone = True
            if self._fiber is not None and not reply.protected and not reply.finished:
                self._fiber.cancel()

    def eof_received(self) -> bool:
        """A client that closes its side has left: what is being answered ends, what has been answered still goes out."""
        if self._reply is not None:
            self.kill()
            return True
        self.closing = self._deaf = True
        self._since = time.monotonic_ns()
        self._unsent = -1
        return False

    def pause_writing(self) -> None:
        """The client is slower than the handler."""
        self.write_paused = True
        self._since = time.monotonic_ns()
        self._unsent = -1

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_paused = False
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None
        if self._reply is None:
            self._next()

    def data_received(self, data: bytes) -> None:
        """Reads a plain request, or feeds the parser; whatever is no HTTP/1.1 is answered with 400 and a closed connection."""
        if self._deaf:
            return
        if self._missing:
            self._fill(data)
            return
        if not self._received:
            self._received = time.monotonic_ns()
            if self._phase == IDLE:
                if self._plain(data):
                    return
                self._phase = HEAD
                self._head_bytes = 0
        if self._phase == HEAD:
            self._head_bytes += len(data)
        else:
            self._raw_bytes += len(data)
            if self._raw_bytes > 2 * self._server.limits.max_body_bytes + 65536:  # chunk extensions, trailers
                self._refuse(body_too_large(self._server.limits))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, PenstockError):
                raise
            self._refuse(cause)
        except httptools.HttpParserError as error:
            self._refuse(not_http(data, error))
        else:
            if self._phase == HEAD and self._head_bytes > self._server.limits.max_header_bytes:
                self._refuse(header_too_large(self._server.limits))

    def _plain(self, data: bytes) -> bool:
        """Takes `data` as one request, or as its head and some of its body, if it is no more and no less."""
        limits = self._server.limits
        found = self._server.reader.request(data, limits.max_header_bytes, self._received, self._peer)
        if found is None:
            return False
        request, size, length = found
        here = len(data) - size
        if here > length or length > limits.max_body_bytes:
            return False
        self._request = request
        if here == length:
            if length:
                request.body = data[size:]
            self._whole(request)
            return True
        if here:
            self._body.append(data[size:])
            self._body_bytes = here
        self._missing = length - here
        self._phase = BODY
        self._since = time.monotonic_ns()
        return True

    def _fill(self, data: bytes) -> None:
        """Adds to the body of a plain request."""
        missing = self._missing
        if len(data) < missing:
            self._missing = missing - len(data)
            self._body.append(data)
            return
        self._missing = 0
        self._body.append(data[:missing] if len(data) > missing else data)
        request, body = self._request, self._body
        self._body = []
        self._body_bytes = 0
        if request is not None:
            request.body = b"".join(body)
            self._whole(request)
        if len(data) > missing:
            self.data_received(data[missing:])

    def _stay(self, rest: bytes) -> None:
        """Goes on in HTTP/1.1 after a request that offered another protocol, whose body llhttp leaves unread."""
        self._parser = httptools.HttpRequestParser(self)
        request = self._resumed
        if request is None:
            self.data_received(rest)
            return
        name = b"content-length" if b"content-length" in request.headers else b"transfer-encoding"
        head = b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, request.headers[name])
        self._received = request.received_ns
        self.data_received(head + rest)

    # -- parser callbacks --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request has been read."""
        if not self._received:  # in the middle of a read
            self._received = time.monotonic_ns()
            self._phase = HEAD
            self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """The target, or the next part of it, has been read."""
        self._target = self._target + url if self._target else url
        self._field_bytes = len(self._target)
        self._fields = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field has been read."""
        name = name.lower()
        if self._phase == BODY:  # a trailer: nothing here needs one, and it must not pass for a header
            check_trailer(name)
            return
        self._field_bytes += len(name) + len(value) + 4
        self._fields += 1
        limits = self._server.limits
        if self._fields > limits.max_headers or self._field_bytes > limits.max_header_bytes:
            raise header_too_large(limits)  # before they are all joined
        headers = self._headers
        value = value.rstrip(b" \t")
        if name in headers:
            if name in {b"host", b"authorization", b"content-type"}:
                raise BadRequest(f"The header field {name.decode()} was sent twice.", code="bad_http")
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        """The head has been read: everything that can be refused without the body is refused here."""
        self._phase = BODY
        self._since = time.monotonic_ns()
        self._raw_bytes = 0
        if self._resumed is not None:
            self._request, self._resumed = self._resumed, None
            self._headers = {}
            self._target = b""
            return
        headers = self._headers
        self._headers = {}
        parser = self._parser
        version = parser.get_http_version()
        check_head(headers, version, self._field_bytes, self._server.limits)
        target, self._target = self._target, b""
        target = origin_form(parser.get_method(), target)
        path, _, query = target.partition(b"?")
        try:
            text = path.decode("ascii")
        except UnicodeDecodeError:
            raise BadRequest("The request's path holds bytes that are not ASCII.", code="bad_http") from None
        self._request = Request(
            parser.get_method().decode(),
            text,
            query,
            headers,
            self._received,
            version,
            parser.should_keep_alive(),
            self._peer,
        )
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                raise ExpectationFailed("The only expectation understood is 100-continue.")
            if version == "1.1" and headers.get(b"content-length") != b"0":
                self._expects = True
                self._loop.call_soon(self._continue)

    def on_body(self, data: bytes) -> None:
        """A piece of the body has been read."""
        self._body.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self._server.limits.max_body_bytes:
            raise body_too_large(self._server.limits)

    def on_message_complete(self) -> None:
        """The request is whole: it runs now, or waits until those before it have been answered."""
        request = self._request
        if request is None:
            return
        body = self._body
        if body:
            request.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
            self._body_bytes = 0
        headers = request.headers
        if (
            b"upgrade" in headers
            and not body
            and (b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0")
            and not self._deaf
        ):
            self._request = None
            self._received = 0
            self._phase = IDLE
            self._since = time.monotonic_ns()
            self._resumed = request
            return
        self._whole(request)

    def _whole(self, request: Request) -> None:
        """The request has been read to its end."""
        self._request = None
        self._received = 0
        self._phase = IDLE
        self._since = time.monotonic_ns()
        if self._deaf:
            return
        self._expects = False
        if not request.keep_alive:
            self._deaf = True
        if self._reply is None and not self.write_paused:
            self._run(request)
        else:
            self._queue.append(request)
            if len(self._queue) >= self._server.limits.max_pipelined and not self._reading_paused:
                self._reading_paused = True
                self._transport.pause_reading()  # type: ignore[union-attr]

    # -- the way of one request --------------------------------------------------------------------------------------

    def _run(self, request: Request) -> None:
        newer = request.version == "1.1"
        reply = Reply(self, bodiless=request.method == "HEAD", chunked=newer, close=not request.keep_alive)
        self.keep_alive_line = b"" if newer else b"connection: keep-alive\r\n"
        self._reply = reply
        self._fiber = fiber = Fiber(self._server.serve(request, reply), self._loop)
        fiber.start()

    @property
    def ends(self) -> bool:
        """Whether the reply that is being given is the connection's last."""
        return self.closing and not self._queue and self._refusal is None

    def reply_finished(self, *, close: bool) -> None:
        """The last byte of the reply has been handed over: on to the next request, or to the end."""
        self._reply = None
        self._since = time.monotonic_ns()
        if close:
            self._queue.clear()
            self._close()
        elif (self._queue or self._refusal is not None) and not self.write_paused:
            self._next()

    def _next(self) -> None:
        if self._queue:
            self._run(self._queue.popleft())
            if self._reading_paused and len(self._queue) <= self._server.limits.max_pipelined // 2:
                self._reading_paused = False
                if self._phase != IDLE:  # the client was not heard meanwhile
                    self._since = self._received = time.monotonic_ns()
                if self._transport is not None:
                    self._transport.resume_reading()
        elif self._refusal is not None:
            self._tell(self._refusal)

    def transport_write(self, data: bytes) -> None:
        """Hands bytes to the kernel, or to the transport's buffer."""
        if self._transport is not None:
            self._transport.write(data)

    def writable(self) -> asyncio.Future[None] | None:
        """None if the client keeps up, else a future that is done when it has caught up or left."""
        if not self.write_paused or self._transport is None:
            return None
        if self._waiter is None or self._waiter.done():  # one that was cancelled is done
            self._waiter = self._loop.create_future()
        return self._waiter

    @property
    def date_line(self) -> bytes:
        """The `date` field of this second."""
        return self._server.date_line

    def _continue(self) -> None:
        if self._expects and self._phase == BODY and not self._body and self._reply is None and not self._lingers:
            self.transport_write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expects = False

    # -- ends --------------------------------------------------------------------------------------------------------

    def _refuse(self, error: PenstockError) -> None:
        """Answers with `error` and closes, when what came before has been answered."""
        self._server.count_refusal(error)
        self._phase = IDLE
        self._received = 0
        self._request = None
        self._body = []
        self._deaf = True
        self._lingers = True
        self._refusal = error
        if self._reply is None and not self._queue:
            self._tell(error)

    def _tell(self, error: PenstockError) -> None:
        self._refusal = None
        body = error_body(error)
        self.transport_write(
            b"%b%b%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (
                STATUS_LINES[error.status],
                self._server.date_line,
                header_lines(error_headers(error)),
                len(body),
                body,
            )
        )
        self._close()

    def _close(self) -> None:
        """Closes after what was written. A client that may still be sending is heard out, so that it can read the reply."""
        self.closing = self._deaf = True
        self._since = time.monotonic_ns()
        self._unsent = -1
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._lingers or self._phase != IDLE:
            self._lingers = True
            if transport.can_write_eof():
                transport.write_eof()
                return
        transport.close()

    def shut(self) -> None:
        """Asks the connection to end: when it has been idle for the server's grace, or with the reply that is being given."""
        self.closing = True
        self.check_time(time.monotonic_ns())

    def kill(self) -> None:
        """Ends the connection now, whatever it does."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self._reply is not None or self._phase != IDLE

    def check_time(self, now: int) -> None:
        """Ends what takes too long. `now` is `time.monotonic_ns()`; called every fraction of a second."""
        limits = self._server.limits
        waited = (now - self._since) / 1e9
        if self._lingers and self._reply is None:
            if waited > limits.linger_s:
                self.kill()
        elif self.write_paused or (self.closing and self._transport is not None and self._transport.is_closing()):
            self._check_taking(now, waited)
        elif self._phase == HEAD:
            if (now - self._received) / 1e9 > limits.header_timeout_s and not self._reading_paused:
                self._refuse(RequestTimeout(f"The request's head did not come within {limits.header_timeout_s} s."))
        elif self._phase == BODY:
            if waited > limits.body_timeout_s and not self._reading_paused:
                self._refuse(RequestTimeout(f"The request's body did not come within {limits.body_timeout_s} s."))
        elif self._reply is None:
            rest_s = limits.idle_timeout_s if self._fiber is not None else limits.header_timeout_s
            if waited > (limits.grace_s if self.closing else rest_s):
                self._close()

    def _check_taking(self, now: int, waited: float) -> None:
        """Lets a client go that takes less of what was written for it than the least rate, the kernel's share included."""
        limits = self._server.limits
        transport = self._transport
        if transport is None:
            return
        left = transport.get_write_buffer_size() + _unsent_by_kernel(transport)
        if self._unsent < 0:
            self._unsent, self._since = left, now
        elif waited > limits.write_timeout_s:
            if self._unsent - left < limits.min_rate * waited:
                self.kill()
            self._unsent, self._since = left, now
