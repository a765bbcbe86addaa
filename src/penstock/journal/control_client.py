"""Control, as the shipper and hosts that share their keys ask it: over HTTP, with the service token."""

from typing import TypeVar

import msgspec

from penstock.core.errors import UpstreamFailed
from penstock.net.client import Client, Timeouts, parse_origin

_MOST_BYTES = 16 * 1024 * 1024
_TIMEOUTS = Timeouts(connect_s=2.0, first_byte_s=30.0, stall_s=10.0)

T = TypeVar("T")


class ControlClient:
    """Control at `url`, asked over at most `connections` at once; an answer of more than 16 MiB is refused. Close it."""

    def __init__(self, url: str, token: str, *, connections: int = 2) -> None:
        """`token` is the service token."""
        self._origin = parse_origin(url)
        self._headers = [
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/octet-stream"),
        ]
        self._client = Client(max_connections=connections)

    async def ask(self, method: bytes, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """The status and the body of control's answer.

        Raises:
            PenstockError: if there is none.
        """
        response = await self._client.request(self._origin, method, path.encode(), self._headers, body, _TIMEOUTS)
        return response.status, await response.read(_MOST_BYTES)

    async def read(self, path: str, kind: type[T], what: str) -> T:
        """The JSON document at `path` as a `kind`; `what` names it in errors.

        Raises:
            PenstockError: if control is away, refuses, or answers something else.
        """
        status, body = await self.ask(b"GET", path)
        if status != 200:
            raise UpstreamFailed(f"Control answered {status} when asked for {what}: {body[:200]!r}.")
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise UpstreamFailed(f"Control's answer is not {what}: {error}.") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
