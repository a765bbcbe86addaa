"""Signing in with a key, and out again."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from penstock.console.client import Api
from penstock.console.forms import local_path, read_form
from penstock.console.session import COOKIE, Session
from penstock.console.shapes import Me
from penstock.console.visit import Console, address_of
from penstock.core.errors import Forbidden, PenstockError, Unauthenticated

_LONGEST_KEY = 512


def _form(console: Console, request: Request, session: Session, trouble: str = "", status: int = 200) -> Response:
    target = local_path(request.query_params.get("next", "/"))
    return console.page(request, session, "sign_in.html", status=status, next=target, trouble=trouble)


async def show(console: Console, request: Request) -> Response:
    """The form; a session without a key is begun for its token."""
    session = console.sealer.open(request.cookies.get(COOKIE)) or console.sealer.fresh()
    response = _form(console, request, session)
    console.keep(request, response, session)
    return response


async def sign_in(console: Console, request: Request) -> Response:
    """Keep the key, if the API knows it, in a session with a token of its own."""
    session = console.sealer.open(request.cookies.get(COOKIE))
    try:
        fields = await read_form(request)
        if session is None:
            raise Forbidden("Your browser sent no session: cookies must be allowed here.")
        session.check(fields.get("csrf", ""))
        key = fields.get("key", "").strip()
        if not key or len(key) > _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise Unauthenticated("That is no key: it starts with the letters that its file holds, on one line.")
        await Api(console.api, key, address_of(request)).get("/me", Me)
    except PenstockError as error:
        fresh = session or console.sealer.fresh()
        response = _form(console, request, fresh, error.message, error.status)
        console.keep(request, response, fresh)
        return response
    response = RedirectResponse(local_path(fields.get("next", "/")), status_code=303)
    console.keep(request, response, Session(csrf=console.sealer.fresh().csrf, key=key))
    return response


async def sign_out(console: Console, request: Request) -> Response:
    """Forget the session."""
    session = console.sealer.open(request.cookies.get(COOKIE))
    if session is not None:
        try:
            session.check((await read_form(request)).get("csrf", ""))
        except PenstockError as error:
            return console.error_page(request, session, error)
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response
