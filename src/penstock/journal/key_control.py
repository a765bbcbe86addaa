"""The root of all hosts' keys, borrowed from control."""

from pathlib import Path

from penstock.core.errors import Unavailable, UpstreamFailed
from penstock.journal.control_client import ControlClient
from penstock.journal.whole import create_whole


async def borrow_root(folder: Path, url: str, token: str) -> None:
    """Has the root key of all hosts in `folder`, wrapped by the master key; one that is there stays.

    Raises:
        Unavailable: if there is none, and control cannot be asked or the disk refuses.
    """
    if (folder / "root.json").exists():
        return
    control = ControlClient(url, token)
    try:
        status, root = await control.ask(b"GET", "/internal/v1/keys/root")
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
