"""Secrets that messages are signed with: files in a folder, named by webhooks, read when they are needed."""

from pathlib import Path

from penstock.core.errors import BadRequest
from penstock.core.settings import Settings
from penstock.delivery.webhooks import parse_secret

_MOST_BYTES = 4096


def folder_of(settings: Settings, data: Path) -> Path:
    """Where secrets lie."""
    return Path(settings.webhooks.secrets) if settings.webhooks.secrets else data / "secrets"


def read_secrets(folder: Path, name: str) -> tuple[bytes, ...]:
    """The secrets in the file `name`, one a line, the one that counts first.

    Raises:
        BadRequest: if there is no such file, it cannot be read, or holds something else.
    """
    path = folder / name
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadRequest(
            f"spec.secret: the secret {name!r} cannot be read from {path}: {why}.",
            param="spec.secret",
            hint=f"penstock webhooks secret > {path} makes one.",
        ) from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadRequest(f"spec.secret: {path} holds no secret.", param="spec.secret")
    return tuple(parse_secret(line) for line in lines)
