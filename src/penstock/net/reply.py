"""A reply as the handler gives it: whole by `send`, or in pieces by `start`, `write` and `end`."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.net.connection import Connection

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

Headers = Sequence[tuple[bytes, bytes]]


def header_lines(headers: Headers) -> bytes:
    """`headers` as they stand in a head, each line with its end.

    Raises:
        ValueError: if a name or value holds a line end, which would let its author write further fields.
    """
    lines = b"".join([b"%b: %b\r\n" % field for field in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        raise ValueError("a header field holds a line end")
    return lines


class Reply:
    """The reply to one request, bound to its place on the connection.

    Attributes:
        started: the status has been handed to the connection.
        finished: the last byte has been handed to the connection, or the reply was given up.
        gone: the client has left; whatever is written goes nowhere.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_close",
        "_connection",
        "_head",
        "finished",
        "gone",
        "promised",
        "protected",
        "started",
    )

    def __init__(self, connection: Connection, *, bodiless: bool, chunked: bool, close: bool) -> None:
        self._connection = connection
        self._bodiless = bodiless  # HEAD
        self._chunked = chunked  # HTTP/1.0 knows no chunks: there the end of the connection is the end of the body
        self._close = close
        self._head = b""
        self.started = False
        self.finished = False
        self.gone = False
        self.protected = False
        self.promised = False

    def promise(self) -> None:
        """The handler may return before the reply ends: somebody else will end it, and soon."""
        self.promised = True

    def shielded(self) -> None:
        """From here on the handler runs to its end even if the client leaves; it may ask `gone`."""
        self.protected = True

    def send(self, status: int, headers: Headers, body: bytes, lines: bytes = b"") -> None:
        """The whole reply, in one write. `lines` are header fields that are encoded already, each with its line end.

        Raises:
            RuntimeError: if a reply has been started.
        """
        if self.started:
            raise RuntimeError("the reply has been started already")
        connection = self._connection
        close = self._close or connection.ends
        data = b"%b%b%b%bcontent-length: %d\r\n%b\r\n" % (
            STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status,
            connection.date_line,
            lines,
            header_lines(headers) if headers else b"",
            len(body),
            b"connection: close\r\n" if close else connection.keep_alive_line,
        )
        self.started = self.finished = True
        if not self.gone:
            connection.transport_write(data if self._bodiless else data + body)
            connection.reply_finished(close=close)

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """The head of a reply whose body comes in pieces. It goes out with the first piece, or at the next `drain`.

        Raises:
            RuntimeError: if a reply has been started.
        """
        if self.started:
            raise RuntimeError("the reply has been started already")
        connection = self._connection
        if not self._chunked:
            self._close = True
        self._close = self._close or connection.ends
        self._head = b"%b%b%b%b%b%b\r\n" % (
            STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status,
            connection.date_line,
            lines,
            header_lines(headers) if headers else b"",
            b"transfer-encoding: chunked\r\n" if self._chunked else b"",
            b"connection: close\r\n" if self._close else connection.keep_alive_line,
        )
        self.started = True

    def write(self, data: bytes) -> None:
        """A piece of the body. Nothing waits: call `drain` between pieces to go at the client's speed."""
        if self.gone or self.finished or not data:
            return
        head = self._head
        if self._bodiless:
            data = head
        elif self._chunked:
            data = b"%b%x\r\n%b\r\n" % (head, len(data), data)
        elif head:
            data = head + data
        if head:
            self._head = b""
        if data:
            self._connection.transport_write(data)

    def pass_on(self, data: bytes, framed: bytes) -> bool:
        """A piece of the body that is at hand in whole chunks (`framed`) too; whether the client keeps up."""
        if self._head or self._bodiless or self.gone or self.finished or not self._chunked:
            self.write(data)
        else:
            self._connection.transport_write(framed)
        return not self._connection.write_paused

    async def drain(self) -> None:
        """Waits until the client has taken enough of what was written; returns at once if it has, or has left."""
        if self.gone:
            return
        if self._head:
            self._connection.transport_write(self._head)
            self._head = b""
        waiter = self._connection.writable()
        if waiter is not None:
            await waiter

    @property
    def blocked(self) -> bool:
        """Whether the client is slower than what was written: time to `drain`."""
        return self._connection.write_paused

    def end(self, data: bytes = b"") -> None:
        """The end of the body, with a last piece if `data` is given."""
        if self.finished:
            return
        self.finished = True
        if self.gone:
            return
        tail = self._head
        self._head = b""
        if not self._bodiless:
            if self._chunked:
                tail = b"%b%x\r\n%b\r\n0\r\n\r\n" % (tail, len(data), data) if data else tail + b"0\r\n\r\n"
            else:
                tail += data
        connection = self._connection
        if tail:
            connection.transport_write(tail)
        connection.reply_finished(close=self._close or connection.ends)

    def abort(self) -> None:
        """Closes the connection after what was written, without the end that would make the reply whole."""
        if self.finished:
            return
        self.finished = True
        if self.gone:
            return
        if self._head:
            self._connection.transport_write(self._head)
            self._head = b""
        self._connection.reply_finished(close=True)
