"""Control, as hosts that share their keys ask it."""

from pathlib import Path

from penstock.core.errors import Unavailable, UpstreamFailed
from penstock.journal.whole import create_whole
from penstock.net.client import Client, Timeouts, parse_origin


class ControlKeys:
    """Asks control at `url`; an `Ask` of `journal.key_exchange`."""

    def __init__(self, url: str, token: str) -> None:
        """`token` is the service token."""
        self._origin = parse_origin(url)
        self._headers = [
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/octet-stream"),
        ]
        self._client = Client(max_connections=2)
        self._timeouts = Timeouts(connect_s=2.0, first_byte_s=30.0, stall_s=10.0)

    async def __call__(self, method: bytes, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and the body of control's answer.

        Raises:
            PenstockError: if there is none.
        """
        response = await self._client.request(self._origin, method, path.encode(), self._headers, body, self._timeouts)
        return response.status, await response.read(4 * 1024 * 1024)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


async def borrow_root(folder: Path, url: str, token: str) -> None:
    """Has the root key of all hosts in `folder`, wrapped by the master key; one that is there stays.

    Raises:
        Unavailable: if there is none, and control cannot be asked or the disk refuses.
    """
    if (folder / "root.json").exists():
        return
    control = ControlKeys(url, token)
    try:
        status, root = await control(b"GET", "/internal/v1/keys/root", b"")
    except UpstreamFailed as error:
        raise Unavailable(
            f"The first start with keys.shared needs control at {url}, for the root of all keys: {error.message}"
        ) from None
    finally:
        await control.close()
    if status != 200:
        raise Unavailable(
            f"Control at {url} answered {status} when it was asked for the root of all keys: is keys.shared set there?"
        )
    try:
        _put(folder, root)
    except OSError as error:
        raise Unavailable(f"The keys in {folder} cannot be written: {error.strerror}.", param="keys.folder") from None


def _put(folder: Path, root: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_whole(folder / "root.json", root)
