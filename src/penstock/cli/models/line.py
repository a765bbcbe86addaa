"""A connection on which blocks go: the standard library's, which sends and fills buffers as they are; one for each thread."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Iterator
from urllib.parse import quote, urlsplit

from penstock.cli.client import Api, at, refusal
from penstock.core.errors import Unavailable

_BUFFER = 4 << 20


class Line:
    """A kept connection to control. Not for several threads at once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._connection: http.client.HTTPConnection | None = None

    def put(self, upload: str, length: int, body: Iterable[bytes]) -> None:
        """Put blocks of `upload`: the `length` bytes of `body`.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached.
        """
        path = f"/blobs/blocks?upload={quote(upload, safe='')}"
        with self._ask("POST", path, length, body, "application/octet-stream") as response:
            response.read()

    def read(self, name: str, version: str, names: list[str], sizes: list[int]) -> Iterator[memoryview]:
        """The bytes of those blocks of the version, which are `sizes` long; each is good until the next is asked for.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached or breaks off.
        """
        asked = json.dumps({"blocks": names}).encode()
        path = f"{at('models', name, 'versions', version)}/blocks"
        buffer = memoryview(bytearray(max(sizes)))
        with self._ask("POST", path, len(asked), [asked], "application/json") as response:
            for size in sizes:
                filled = 0
                while filled < size:
                    try:
                        count = response.readinto(buffer[filled:size])
                    except (OSError, http.client.HTTPException) as error:
                        raise self._broken(error) from None
                    if not count:
                        raise self._broken(EOFError("it broke off"))
                    filled += count
                yield buffer[:size]

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, length: int, body: Iterable[bytes], kind: str) -> http.client.HTTPResponse:
        headers = {
            "authorization": f"Bearer {self._api.key}",
            "content-type": kind,
            "content-length": str(length),
        }
        try:
            if self._connection is None:
                self._connection = self._open()
            self._connection.request(method, self._prefix + path, body=body, headers=headers)
            response = self._connection.getresponse()
            if response.status >= 400:
                told = response.read()
                raise refusal(response.status, told, f"{method} {path}")
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from None
        return response

    def _open(self) -> http.client.HTTPConnection:
        url = urlsplit(self._api.url)
        self._prefix = f"{url.path.rstrip('/')}/api/v1"
        host, port, wait = url.hostname or "", url.port, self._api.patience_s
        if url.scheme == "https":
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=wait, blocksize=_BUFFER, context=ssl.create_default_context()
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=wait, blocksize=_BUFFER)
        made.connect()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            made.sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        return made

    def _broken(self, error: BaseException) -> Unavailable:
        self.close()
        return Unavailable(
            f"The control plane at {self._api.url} broke off ({error or type(error).__name__}).",
            hint="Do it again: what has arrived is not sent again.",
        )
