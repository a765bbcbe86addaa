"""TLS between a socket and a connection: bytes are sealed as they are written, so that all that waits, waits in the socket's transport."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.net.connection import Connection
    from penstock.net.server import Server

_READ_BYTES = 65536
_HANDSHAKE = 0x16  # the type of a client's first record
_NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 43\r\n\r\n"
    b"This port speaks TLS: write https:// for it"
)


class TlsConnection(asyncio.Protocol):
    """The socket's protocol, and the transport of the `inner` connection, which stands from the socket's first moment on.

    So the connection's own bounds of time hold for the handshake too, and one that has not shaken hands counts as open.
    Backpressure is the socket's, both ways. A client that ends TLS has left, like one that ends its side of a plain connection.
    """

    __slots__ = ("_begun", "_incoming", "_inner", "_open", "_outgoing", "_server", "_shut", "_socket", "_ssl")

    def __init__(self, server: Server, inner: Connection, context: ssl.SSLContext) -> None:
        self._server = server
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._socket: asyncio.Transport | None = None
        self._begun = False  # something has come
        self._open = False  # hands have been shaken
        self._shut = False  # nothing more is read or written

    # -- protocol of the socket --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket stands; the client has the first word."""
        self._socket = transport  # type: ignore[assignment]
        self._inner.connection_made(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._shut = True
        self._inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """The client has left."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """The client is slower than what is written."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Opens what is sealed, and hands it on."""
        if self._shut:
            return
        incoming, sealed = self._incoming, self._ssl
        incoming.write(data)
        if not self._open and not self._shake(data):
            return
        left = False
        pieces: list[bytes] = []
        try:
            while incoming.pending or sealed.pending():
                piece = sealed.read(_READ_BYTES)
                if not piece:
                    left = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            left = True
        except ssl.SSLError:
            self._fail()
            return
        if self._outgoing.pending:
            self._flush()
        if pieces:
            self._inner.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if left and not self._shut:
            self.close()

    def _shake(self, data: bytes) -> bool:
        first, self._begun = not self._begun, True
        if first and data[0] != _HANDSHAKE:
            self._shut = True
            self._server.tls_failures += 1
            if self._socket is not None:
                self._socket.write(_NOT_TLS)
                self._socket.close()
            return False
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            self._fail()
            return False
        self._open = True
        self._flush()
        return True

    def _fail(self) -> None:
        """What came is no TLS that can be spoken: the client is told (an alert) and left."""
        self._shut = True
        self._server.tls_failures += 1
        self._flush()
        if self._socket is not None:
            self._socket.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._socket is not None:
            self._socket.write(data)

    # -- transport of the connection ---------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Seals `data` and hands it to the socket."""
        if self._shut or not self._open or not data:
            return
        done = self._ssl.write(data)
        if done < len(data):  # a record holds 16 KiB
            rest = memoryview(data)[done:]
            while rest:
                rest = rest[self._ssl.write(rest) :]
        if self._socket is not None:
            self._socket.write(self._outgoing.read())

    def close(self) -> None:
        """Closes after what was written, with the word that this is the end."""
        if self._socket is None:
            return
        if self._open:
            self._part()
            self._socket.close()
        else:
            self._socket.abort()

    def can_write_eof(self) -> bool:
        """Whether the sending side can be ended alone."""
        return True

    def write_eof(self) -> None:
        """Ends the sending side; what still comes is thrown away unread."""
        self._part()
        if self._socket is not None:
            self._socket.write_eof()

    def _part(self) -> None:
        if self._shut:
            return
        self._shut = True
        with contextlib.suppress(ssl.SSLError):  # it would wait for the client's word, which nobody needs
            self._ssl.unwrap()
        self._flush()

    def abort(self) -> None:
        """Closes at once."""
        self._shut = True
        if self._socket is not None:
            self._socket.abort()

    def is_closing(self) -> bool:
        """Whether the socket is closing or closed."""
        return self._socket is None or self._socket.is_closing()

    def get_write_buffer_size(self) -> int:
        """Sealed bytes that the kernel has not taken."""
        return 0 if self._socket is None else self._socket.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The socket's."""
        return default if self._socket is None else self._socket.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Reads nothing more from the socket."""
        if self._socket is not None:
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Reads on."""
        if self._socket is not None:
            self._socket.resume_reading()
