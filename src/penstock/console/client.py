"""The console's client of the control plane's API: JSON in, values out, and refusals as the errors they were sent as."""

from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PenstockError,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

T = TypeVar("T")
_KINDS: dict[int, type[PenstockError]] = {
    kind.status: kind for kind in (BadRequest, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, RateLimited)
}


def told_error(status: int, body: bytes) -> PenstockError:
    """The error that an answer of `status` with `body` stands for, in our own tree."""
    kind = _KINDS.get(status) or (Unavailable if status >= 500 else BadRequest)
    try:
        error = msgspec.json.decode(body)["error"]
        return kind(str(error["message"]), code=error.get("code"), param=error.get("param"), hint=error.get("hint"))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return kind(f"The API answered with status {status} and no reason.")


def at(*parts: str) -> str:
    """The path of what `parts` name, each quoted as one segment.

    Raises:
        NotFound: if a part could never be a name.
    """
    for part in parts:
        if part in {"", ".", ".."}:
            raise NotFound(f"There is nothing called {part!r}.")
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Api:
    """The API as one caller sees it.

    Args:
        http: a client whose base URL is the control plane's, in process or not.
        key: the caller's key.
        address: where the visitor comes from, whom failed logins are counted for.
    """

    def __init__(self, http: httpx.AsyncClient, key: str, address: str) -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {key}", "accept": "application/json", "x-penstock-for": address}

    async def call(self, method: str, path: str, *, body: Any = None, query: dict[str, Any] | None = None) -> bytes:
        """The answer's body; `path` is below `/api/v1`, and `query` entries that are none or empty are left out.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it could not be reached.
        """
        parameters = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        try:
            response = await self._http.request(
                method, f"/api/v1{path}", json=body, params=parameters, headers=self._headers
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"The control plane's API cannot be reached: {error}.") from error
        if response.status_code >= 400:
            raise told_error(response.status_code, response.content)
        return response.content

    async def get(self, path: str, shape: type[T], **query: Any) -> T:
        """What stands at `path`, as a `shape`.

        Raises:
            PenstockError: as `call`; `Unavailable` if the answer has another shape.
        """
        content = await self.call("GET", path, query=query)
        try:
            return msgspec.json.decode(content, type=shape, strict=False)
        except msgspec.DecodeError as error:
            raise Unavailable(f"The API's answer at {path} is not what this console reads: {error}.") from error

    async def post(self, path: str, body: Any = None) -> Any:
        """The answer to posting `body` to `path`; none if it is empty.

        Raises:
            PenstockError: as `call`.
        """
        content = await self.call("POST", path, body={} if body is None else body)
        return msgspec.json.decode(content) if content else None
