"""Request bodies are bounded before anything parses them; those that are streamed to the blob store bound themselves."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.control.errors import error_response
from penstock.control.heads import MAX_HEAD_BYTES, head_size, too_large
from penstock.core.errors import BadRequest, TooLarge


class _Exceeded(Exception):
    """The body is longer than the limit."""


class BoundedBodies:
    """ASGI middleware: a body of more than `limit` bytes is answered with 413, except at paths that begin as one of `unbounded`.

    At paths that begin as one of `larger` its limit counts instead: bodies are parsed before anything asks who sent them.

    Heads that are too large are answered with 431, and addresses with a NUL are refused, too: PostgreSQL takes none.
    """

    def __init__(self, app: ASGIApp, *, limit: int, larger: Mapping[str, int], unbounded: Sequence[str]) -> None:
        self._app = app
        self._limit = limit
        self._larger = dict(larger)
        self._unbounded = tuple(unbounded)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            refused = BadRequest("The address holds the character NUL, which no name here has.", param="path")
            await error_response(refused)(scope, receive, send)
            return
        if head_size(scope) > MAX_HEAD_BYTES:
            await error_response(too_large())(scope, receive, send)
            return
        if scope["path"].startswith(self._unbounded):
            await self._app(scope, receive, send)
            return
        limit = next((most for begin, most in self._larger.items() if scope["path"].startswith(begin)), self._limit)
        seen = 0
        begun = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise _Exceeded
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            if begun or seen <= limit:  # else: what the app makes of the exception, ours is said instead
                begun = True
                await send(message)

        with suppress(_Exceeded):
            await self._app(scope, counted, watched)
        if seen > limit and not begun:
            error = TooLarge(f"The body is longer than {limit} bytes.", param="body")
            await error_response(error)(scope, receive, send)
