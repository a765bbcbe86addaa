"""The CLI's client of the control API: finds out where it is and as whom to ask, and turns refusals into our own errors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from penstock.core.errors import (
    BadRequest,
    Conflict,
    ContentFiltered,
    Damaged,
    Forbidden,
    NotFound,
    PenstockError,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from penstock.core.settings import Settings

_KINDS: dict[int, type[PenstockError]] = {
    kind.status: kind for kind in (BadRequest, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, RateLimited)
}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_TIMEOUT_S = 120.0


def find_url(settings: Settings) -> str:
    """Where control answers: the setting, or what runs on the data folder, or the default port of this machine."""
    if settings.url:
        return settings.url.rstrip("/")
    try:
        url = json.loads((Path(settings.data) / "run" / "control.json").read_bytes()).get("url", "")
    except (OSError, ValueError, AttributeError):
        url = ""
    return url or f"http://127.0.0.1:{settings.control.port}"


def find_key(settings: Settings, url: str) -> str:
    """As whom to ask: the setting, or, of a control on this machine, the admin key in the data folder.

    Raises:
        Unauthenticated: if there is none.
    """
    if settings.key:
        return settings.key
    path = Path(settings.data) / "admin.key"
    if urlsplit(url).hostname in _LOOPBACK:
        try:
            return path.read_text().strip()
        except PermissionError:
            raise Unauthenticated(f"{path} cannot be read by this user; give a key with --key.") from None
        except OSError:
            pass
    raise Unauthenticated(
        f"There is no key to ask {url} with: give --key, set PENSTOCK_KEY, or name the data folder with --data."
    )


def at(*parts: str) -> str:
    """A path below `/api/v1`, each part quoted as one segment."""
    return "".join("/" + quote(part, safe=":@") for part in parts)


class Api:
    """The control API as one caller sees it. Close it, or use it in `with`."""

    def __init__(self, url: str, key: str, *, patience_s: float = _TIMEOUT_S) -> None:
        """Control at `url`, asked with `key`, which has `patience_s` seconds for each step of an answer."""
        self.url = url
        self.key = key
        self.patience_s = patience_s
        self._http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"authorization": f"Bearer {key}"}, timeout=patience_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON document at `path`.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached.
        """
        return self.send("GET", path, **query)

    def send(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """What the API answers, decoded; None for an empty answer. Query values that are None are left out.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached.
        """
        found = {name: value for name, value in query.items() if value is not None}
        with self._told():
            response = self._http.request(method, path, json=body, params=found)
        _check(response)
        return response.json() if response.content else None

    def raw(self, method: str, path: str, content: Any, content_type: str, **query: Any) -> Any:
        """As `send`, with a body that is sent as it is: text, bytes or an iterator of bytes."""
        found = {name: value for name, value in query.items() if value is not None}
        with self._told():
            response = self._http.request(
                method, path, content=content, params=found, headers={"content-type": content_type}
            )
        _check(response)
        return response.json() if response.content else None

    def text(self, path: str, **query: Any) -> str:
        """The text at `path`."""
        with self._told():
            response = self._http.get(path, params={name: value for name, value in query.items() if value is not None})
        _check(response)
        return response.text

    def pieces(self, path: str) -> Iterator[bytes]:
        """The bytes at `path`, as they come."""
        with self._told(), self._http.stream("GET", path) as response:
            if response.status_code >= 400:
                response.read()
                _check(response)
            yield from response.iter_bytes(1 << 20)

    def lines(self, path: str, body: Any) -> Iterator[str]:
        """The lines of the answer to posting `body` to `path`, as they come.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached, or breaks off.
        """
        with self._told(), self._http.stream("POST", path, json=body) as response:
            if response.status_code >= 400:
                response.read()
                _check(response)
            yield from (line for line in response.iter_lines() if line)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise Unavailable(
                f"The control plane at {self.url} did not answer within {self.patience_s:.0f} s."
            ) from None
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The control plane at {self.url} cannot be reached ({error}).",
                hint="Is it running? 'penstock up' starts it; --url names another.",
            ) from None
        except httpx.InvalidURL as error:
            raise BadRequest(f"{self.url!r} is no URL ({error}); give one with --url.", param="--url") from None


def _check(response: httpx.Response) -> None:
    if response.status_code >= 400:
        raise refusal(response.status_code, response.content, f"{response.request.method} {response.url}")


def refusal(status: int, body: bytes, what: str) -> PenstockError:
    """The error that an answer of `status` with `body` tells; `what` was asked."""
    try:
        told = json.loads(body)["error"]
        message, code, param, hint = told["message"], told.get("code"), told.get("param"), told.get("hint")
    except (ValueError, KeyError, TypeError):
        message = f"{what} was answered with status {status}."
        code = param = hint = None
    kind = _KINDS.get(status, Unavailable if status >= 500 else BadRequest)
    if code == ContentFiltered.default_code:
        kind = ContentFiltered
    elif code == Damaged.default_code:
        kind = Damaged
    error = kind(message, code=code, param=param, hint=hint)
    error.exit_code = 1  # what was typed was right; it was the API that refused
    return error
