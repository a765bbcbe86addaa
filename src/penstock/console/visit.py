"""One visit: a request to the console by somebody who has signed in, and the parts that pages share."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
from jinja2 import Environment
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from penstock.access.principals import Permission, Scope, allows
from penstock.console.client import Api
from penstock.console.forms import read_form
from penstock.console.session import COOKIE, LIFETIME_S, Sealer, Session
from penstock.console.shapes import Me
from penstock.core.errors import Forbidden, PenstockError, Unauthenticated

T = TypeVar("T")
_TITLES = {
    400: "That cannot be done",
    403: "Not allowed",
    404: "Not found",
    409: "It has changed meanwhile",
    413: "Too large",
    429: "Too much at once",
}
# What a page says after a change that led to it; the address carries the word alone.
NOTICES = {
    "promoted": "Promoted. The new version takes over when its replicas are ready.",
    "rolled-back": "Rolled back. The earlier version takes over when its replicas are ready.",
    "canary-started": "It is tried out: it gets its share as soon as its replicas are ready.",
    "canary-abort": "Taken back: all traffic goes to what served before.",
    "canary-promote": "Promoted: it has all of the traffic.",
    "canary-pause": "Paused: all traffic goes to what served before.",
    "canary-resume": "It has its share again.",
    "cleared": "The version may be deployed again.",
    "pipeline-cancelled": "The pipeline is cancelled.",
    "webhook-sent": "It is on its way.",
    "build-asked": "It is built in a process of its own, and measured after that.",
    "builds-asked": "What is missing is built, and measured after that.",
    "gates-run": "What is missing is evaluated, on engines of its own.",
    "approved": "You have approved it, with the results that are shown.",
    "start": "The experiment runs.",
    "pause": "The experiment is paused: all traffic goes to the control.",
    "stop": "The experiment has ended.",
    "kill": "The experiment was killed: all of its traffic is on the control until it is archived.",
    "archive": "The experiment is archived.",
    "drift-accepted": "A new reference begins with the next requests.",
    "revoked": "The key is revoked. Gateways refuse it within a second.",
    "key-kept": "The playground uses the key that you gave.",
    "key-forgotten": "The key that you gave before is forgotten.",
}


class Console:
    """What every visit is handed; made once by `build_console`."""

    def __init__(
        self,
        *,
        api: httpx.AsyncClient,
        gateway: httpx.AsyncClient,
        gateway_url: str,
        sealer: Sealer,
        templates: Environment,
        playground_key: Callable[[], str | None],
        clock: Callable[[], float],
        stopping: Callable[[], bool],
    ) -> None:
        self.api = api
        self.gateway = gateway
        self.gateway_url = gateway_url.rstrip("/")
        self.sealer = sealer
        self.templates = templates
        self.playground_key = playground_key
        self.clock = clock
        self.stopping = stopping

    def page(
        self,
        request: Request,
        session: Session,
        template: str,
        *,
        me: Me | None = None,
        status: int = 200,
        **context: Any,
    ) -> HTMLResponse:
        """`template` as an answer, for `me`, if somebody has signed in."""
        section = "/" + request.url.path.split("/")[1]
        text = self.templates.get_template(template).render(
            me=me,
            here=section,
            notice=NOTICES.get(request.query_params.get("done", "")),
            csrf_field=Markup('<input type="hidden" name="csrf" value="{}">').format(session.csrf),
            gateway_url=self.gateway_url,
            **context,
        )
        return HTMLResponse(text, status_code=status)

    def keep(self, request: Request, response: Response, session: Session) -> None:
        """Send `session` as the browser's cookie with `response`."""
        response.set_cookie(
            COOKIE,
            self.sealer.seal(session),
            max_age=LIFETIME_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path="/",
        )

    def error_page(
        self, request: Request, session: Session, error: PenstockError, me: Me | None = None
    ) -> HTMLResponse:
        """`error` in words."""
        return self.page(
            request,
            session,
            "error.html",
            me=me,
            status=error.status,
            title=_TITLES.get(error.status, "Something is down"),
            message=error.message,
            hint=error.hint,
            back=None,
        )


def address_of(request: Request) -> str:
    """Where the visitor comes from."""
    return request.client.host if request.client is not None else ""


class Visit:
    """A request by somebody who has signed in."""

    def __init__(self, console: Console, request: Request, session: Session, me: Me) -> None:
        self.console = console
        self.request = request
        self.session = session
        self.me = me
        self.api = Api(console.api, session.key, address_of(request))

    def may(self, permission: Permission, scope: Scope = "installation") -> bool:
        """Whether the visitor's roles hold `permission`, and it reaches what is of `scope`."""
        return allows(self.me.roles, permission) and (scope == "tenant" or not self.me.tenant)

    def must(self, permission: Permission, scope: Scope = "installation") -> None:
        """Raise `Forbidden` unless the visitor may."""
        if not self.may(permission, scope):
            raise Forbidden(
                f"Your roles ({', '.join(self.me.roles) or 'none'}) do not allow this: it needs {permission}.",
                hint="Sign in with a key that has a role for it, or ask an administrator.",
            )

    async def form(self) -> dict[str, str]:
        """The form that was sent, which must be one that this session was shown.

        Raises:
            Forbidden: if it does not carry the session's token.
        """
        fields = await read_form(self.request)
        self.session.check(fields.get("csrf", ""))
        return fields

    def query(self, name: str) -> str:
        """A query parameter; empty if it is absent."""
        return self.request.query_params.get(name, "").strip()

    def path(self, name: str) -> str:
        """A parameter of the path."""
        return str(self.request.path_params[name])

    def render(self, template: str, **context: Any) -> str:
        """A piece of a page."""
        return self.console.templates.get_template(template).render(gateway_url=self.console.gateway_url, **context)

    def page(self, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """A whole page."""
        return self.console.page(self.request, self.session, template, me=self.me, status=status, **context)

    def to(self, path: str, done: str = "") -> RedirectResponse:
        """Send the browser to `path`, which will say what was `done`."""
        return RedirectResponse(f"{path}?done={done}" if done else path, status_code=303)


async def allowed(reading: Awaitable[T], otherwise: T) -> T:
    """What `reading` gives, or `otherwise` if the visitor's roles do not allow it: a page shows the rest."""
    try:
        return await reading
    except Forbidden:
        return otherwise


Handler = Callable[[Visit], Awaitable[Response]]


def signed_in(console: Console, handler: Handler, *, whole: bool = True) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for `handler`: whoever has not signed in is sent to do so, and refusals become pages.

    Args:
        console: the shared parts.
        handler: makes the answer for a visit.
        whole: whether the answer is a page; what scripts fetch gets its errors as plain text.
    """

    async def endpoint(request: Request) -> Response:
        session = console.sealer.open(request.cookies.get(COOKIE))
        if session is None or not session.key:
            return _to_sign_in(request) if whole else PlainTextResponse("Sign in first.", 401)
        me: Me | None = None
        try:
            me = await Api(console.api, session.key, address_of(request)).get("/me", Me)
            return await handler(Visit(console, request, session, me))
        except Unauthenticated:
            response = _to_sign_in(request) if whole else PlainTextResponse("Your key is no longer valid.", 401)
            response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
            return response
        except PenstockError as error:
            if not whole:
                return PlainTextResponse(error.message, error.status)
            return console.error_page(request, session, error, me)

    return endpoint


def _to_sign_in(request: Request) -> Response:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method != "GET" or target == "/":
        return RedirectResponse("/sign-in", status_code=303)
    return RedirectResponse(str(httpx.URL("/sign-in", params={"next": target})), status_code=303)
