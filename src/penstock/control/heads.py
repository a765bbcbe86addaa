"""Request heads are bounded before anything parses them: uvicorn's own reader holds whatever a client sends before its first body byte."""

import json

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock.core.errors import HeaderTooLarge

MAX_HEAD_BYTES = 65536


class BoundedHead(HttpToolsProtocol):
    """A connection that is told 431 and closed when a head has more than `MAX_HEAD_BYTES` and has not ended yet."""

    _head = 0  # bytes of the head that is being read
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """More of a head or a body."""
        if self._in_head:
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head = False
        self._head = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body has ended; another head may come."""
        super().on_message_complete()
        self.head_follows()

    def head_follows(self) -> None:
        """What comes next is a head."""
        self._in_head = True
        self._head = 0

    def _refuse(self) -> None:
        error = too_large()
        told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        body = json.dumps({"error": told}).encode()
        head = (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
        )
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        self.transport.close()


def head_size(scope: Scope) -> int:
    """Bytes of a request's head, as far as names, values and the address go."""
    fields = sum(len(name) + len(value) for name, value in scope["headers"])
    return fields + len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))


def too_large() -> HeaderTooLarge:
    """What is said of such a head."""
    return HeaderTooLarge(f"The request's head has more than {MAX_HEAD_BYTES} bytes.", param="headers")
