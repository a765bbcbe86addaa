"""A request as the server hands it to its handler."""


class Request:
    """One HTTP request, whole: head and body.

    Attributes:
        method: as sent, in upper case.
        path: the target's path, still percent-encoded, without the query.
        query: what stood behind `?`, or b"".
        headers: values by lower-case name; repeated fields are joined with a comma.
        body: all of it; its size is bounded by the server's limits.
        received_ns: `time.monotonic_ns()` when its first byte was read.
        peer: the client's address, or "" on a Unix socket.
    """

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "peer", "query", "received_ns", "version")

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: dict[bytes, bytes],
        received_ns: int,
        version: str = "1.1",
        keep_alive: bool = True,
        peer: str = "",
        body: bytes = b"",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.received_ns = received_ns
        self.peer = peer
        self.version = version
        self.keep_alive = keep_alive

    def header(self, name: bytes) -> bytes | None:
        """The value of the field `name`, which is given in lower case; None if it was not sent."""
        return self.headers.get(name)
