"""A connection on which blocks go: the standard library's, which sends and fills buffers as they are; one for each thread."""

import http.client
import json
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from penstock.cli.client import Api, at, refusal
from penstock.core.errors import Conflict, Damaged, Unavailable
from penstock.net.loopback import keep_in_cache
from penstock.store.buffers import SIZE, Buffers

_SECURE_PIECE = 1 << 20


class Line:
    """A kept connection to control. Not for several threads at once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._connection: http.client.HTTPConnection | None = None
        self._buffers = Buffers()

    def put(self, upload: str, head: bytes, parts: Iterable[tuple[BinaryIO, int, int]], length: int) -> None:
        """Put blocks of `upload`: `head`, then `length` bytes, which are `parts`: of a file, from where, how many.

        Raises:
            Conflict: if a file has become shorter.
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached.
        """
        path = f"/blobs/blocks?upload={quote(upload, safe='')}"
        with self._telling():
            connection = self._asked("POST", path, len(head) + length, "application/octet-stream")
            connection.send(head)
            for file, start, count in parts:
                if self._send(connection, file, start, count) != count:
                    self.close()
                    raise Conflict(f"{file.name} has become shorter while it was sent.")
            self._answer(connection, "POST", path).read()

    def read(self, name: str, version: str, names: list[str], sizes: list[int]) -> Iterator[memoryview]:
        """The bytes of those blocks of the version, which are `sizes` long; each is good until the next is asked for.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached or breaks off.
        """
        asked = json.dumps({"blocks": names}).encode()
        path = f"{at('models', name, 'versions', version)}/blocks"
        if max(sizes) > SIZE:
            raise Damaged(
                f"The control plane at {self._api.url} tells of a block of {max(sizes)} bytes; none is so large."
            )
        with self._telling():
            connection = self._asked("POST", path, len(asked), "application/json")
            connection.send(asked)
            response = self._answer(connection, "POST", path)
        buffer = self._buffers.take()
        try:
            for size in sizes:
                filled = 0
                with self._telling():
                    while filled < size:
                        count = response.readinto(buffer.view[filled:size])
                        if not count:
                            raise EOFError("it broke off")
                        filled += count
                yield buffer.view[:size]
        finally:
            buffer.drop()
        response.close()

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _asked(self, method: str, path: str, length: int, kind: str) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        connection.putrequest(method, self._prefix + path, skip_accept_encoding=True)
        for name, value in (
            ("authorization", f"Bearer {self._api.key}"),
            ("content-type", kind),
            ("content-length", str(length)),
        ):
            connection.putheader(name, value)
        connection.endheaders()
        return connection

    def _send(self, connection: http.client.HTTPConnection, file: BinaryIO, start: int, count: int) -> int:
        if not isinstance(connection.sock, ssl.SSLSocket):
            return int(connection.sock.sendfile(file, start, count))  # from the page cache, past this process
        file.seek(start)
        sent = 0
        while sent < count and (piece := file.read(min(_SECURE_PIECE, count - sent))):
            connection.send(piece)
            sent += len(piece)
        return sent

    def _answer(self, connection: http.client.HTTPConnection, method: str, path: str) -> http.client.HTTPResponse:
        response = connection.getresponse()
        if response.status >= 400:
            raise refusal(response.status, response.read(), f"{method} {path}")
        return response

    def _open(self) -> http.client.HTTPConnection:
        url = urlsplit(self._api.url)
        self._prefix = f"{url.path.rstrip('/')}/api/v1"
        host, port, wait = url.hostname or "", url.port, self._api.patience_s
        if url.scheme == "https":
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=wait, context=ssl.create_default_context()
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=wait)
        made.connect()
        keep_in_cache(made.sock)
        return made

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable(
                f"The control plane at {self._api.url} broke off ({error or type(error).__name__}).",
                hint="Do it again: what has arrived is not sent again.",
            ) from None
