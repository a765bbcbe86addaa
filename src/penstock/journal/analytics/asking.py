"""How long exchanges are kept, as control says."""

import msgspec

from penstock.core.errors import UpstreamFailed
from penstock.journal.analytics.upkeep import Retention
from penstock.net.client import Client, Timeouts, parse_origin

_PATH = b"/internal/v1/retention"


class RetentionAsker:
    """Asks control, which knows the policies."""

    def __init__(self, url: str, token: str) -> None:
        """Control at `url`; `token` is the service token."""
        self._origin = parse_origin(url)
        self._headers = [(b"authorization", f"Bearer {token}".encode())]
        self._client = Client(max_connections=1)
        self._timeouts = Timeouts(connect_s=2.0, first_byte_s=30.0, stall_s=10.0)

    async def ask(self) -> Retention:
        """What holds now.

        Raises:
            PenstockError: if control is away, or answers something else.
        """
        response = await self._client.request(self._origin, b"GET", _PATH, self._headers, b"", self._timeouts)
        body = await response.read(4 * 1024 * 1024)
        if response.status != 200:
            raise UpstreamFailed(f"Control answered {response.status} when asked how long exchanges are kept.")
        try:
            return msgspec.json.decode(body, type=Retention)
        except msgspec.DecodeError as error:
            raise UpstreamFailed(f"Control's answer does not say how long exchanges are kept: {error}.") from None

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()
