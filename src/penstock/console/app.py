"""The console as one ASGI application: a client of the control plane's public API that shows it to people.

It holds no state: what a visitor may see is what the key in the visitor's cookie may read.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from penstock.console.headers import SecurityHeaders
from penstock.console.pages import (
    access,
    builds,
    canaries,
    data,
    drift,
    experiment_papers,
    experiments,
    gates,
    health,
    manual,
    models,
    overview,
    pipelines,
    playground,
    requests,
    sign_in,
    webhooks,
)
from penstock.console.rendering import STATIC, KeptFiles, make_templates
from penstock.console.session import COOKIE, Sealer
from penstock.console.visit import Console, Handler, signed_in
from penstock.core.errors import BadRequest, NotFound

_PAGES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/", overview.show),
    ("GET", "/requests", requests.listing),
    ("GET", "/requests/{id}", requests.show),
    ("GET", "/models", models.listing),
    ("GET", "/models/{name}", models.show),
    ("GET", "/models/{name}/promote", models.confirm_promote),
    ("POST", "/models/{name}/promote", models.promote),
    ("GET", "/models/{name}/rollback", models.confirm_rollback),
    ("POST", "/models/{name}/rollback", models.rollback),
    ("GET", "/models/{name}/clear", models.confirm_clear),
    ("POST", "/models/{name}/clear", models.clear),
    ("GET", "/models/{name}/diff", data.compare),
    ("GET", "/models/{name}/{label}", models.version),
    ("GET", "/models/{name}/{label}/readiness", data.readiness),
    ("GET", "/models/{name}/{label}/builds", builds.show),
    ("POST", "/models/{name}/{label}/builds/make", builds.make),
    ("POST", "/models/{name}/{label}/builds/suggest", builds.suggest),
    ("GET", "/models/{name}/{label}/gates", gates.show),
    ("POST", "/models/{name}/{label}/gates/run", gates.run),
    ("POST", "/models/{name}/{label}/gates/approve", gates.approve),
    ("GET", "/evaluations/{id}", gates.evaluation),
    ("GET", "/datasets", data.listing),
    ("GET", "/datasets/{name}", data.show),
    ("GET", "/canaries/{name}", canaries.show),
    ("GET", "/canaries/{name}/{action}", canaries.confirm),
    ("POST", "/canaries/{name}/{action}", canaries.act),
    ("GET", "/pipelines", pipelines.listing),
    ("GET", "/pipelines/{id}", pipelines.show),
    ("GET", "/pipelines/{id}/cancel", pipelines.confirm_cancel),
    ("POST", "/pipelines/{id}/cancel", pipelines.cancel),
    ("GET", "/webhooks", webhooks.listing),
    ("GET", "/webhooks/{name}", webhooks.show),
    ("POST", "/webhooks/{name}/send", webhooks.send),
    ("GET", "/drift", drift.show),
    ("POST", "/drift/accept", drift.accept),
    ("GET", "/experiments", experiments.listing),
    ("GET", "/experiments/{name}", experiments.show),
    ("GET", "/experiments/{name}/answers", experiment_papers.answers),
    ("GET", "/experiments/{name}/report", experiment_papers.report),
    ("GET", "/experiments/{name}/export", experiment_papers.export),
    ("GET", "/experiments/{name}/{action}", experiments.confirm),
    ("POST", "/experiments/{name}/{action}", experiments.act),
    ("GET", "/playground", playground.show),
    ("POST", "/playground", playground.whole),
    ("POST", "/playground/key", playground.keep_key),
    ("GET", "/health", health.show),
    ("GET", "/docs/{path:path}", manual.show),
    ("GET", "/access", access.show),
    ("POST", "/access/keys", access.create_key),
    ("GET", "/access/revoke", access.confirm_revoke),
    ("POST", "/access/revoke", access.revoke),
)
_PIECES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/live/overview", overview.live_overview),
    ("GET", "/live/experiments/{name}", experiments.live_experiment),
    ("GET", "/live/canaries/{name}", canaries.live_canary),
    ("GET", "/live/pipelines/{id}", pipelines.live_pipeline),
    ("GET", "/live/builds/{name}/{label}", builds.live_builds),
    ("GET", "/live/gates/{name}/{label}", gates.live_gates),
    ("POST", "/playground/stream", playground.stream),
)


def build_console(
    *,
    api: httpx.AsyncClient,
    gateway: httpx.AsyncClient,
    gateway_url: str,
    secret: bytes,
    playground_key: Callable[[], str | None] = lambda: None,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The console, to be mounted at `/`.

    Args:
        api: a client whose base URL is the control plane's; in process through `httpx.ASGITransport`, or over a socket. It keeps
            no cookies of its own.
        gateway: a client for the playground's requests to `gateway_url`; the caller closes both clients.
        gateway_url: where gateways answer, as people reach them; shown in commands.
        secret: at least 16 bytes that all control processes share; sessions end when it changes.
        playground_key: a gateway key that administrators and operators may use in the playground without giving one.
        stopping: whether the process is about to end; live pages then end their streams.
        clock: Unix seconds.
    """
    console = Console(
        api=api,
        gateway=gateway,
        gateway_url=gateway_url,
        sealer=Sealer(secret, clock),
        templates=make_templates(),
        playground_key=playground_key,
        clock=clock,
        stopping=stopping,
    )
    routes: list[Route | Mount] = [Mount("/static", KeptFiles(directory=STATIC))]
    anonymous: tuple[tuple[str, str, Callable[[Console, Request], Awaitable[Response]]], ...] = (
        ("GET", "/sign-in", sign_in.show),
        ("POST", "/sign-in", sign_in.sign_in),
        ("POST", "/sign-out", sign_in.sign_out),
    )
    routes += [Route(path, partial(handler, console), methods=[method]) for method, path, handler in anonymous]
    routes += [Route(path, signed_in(console, handler), methods=[method]) for method, path, handler in _PAGES]
    routes += [
        Route(path, signed_in(console, handler, whole=False), methods=[method]) for method, path, handler in _PIECES
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={HTTPException: partial(_unknown, console)},
    )


async def _unknown(console: Console, request: Request, raised: Exception) -> Response:
    """No such page; below the API's paths, which this application is mounted beside, in the API's shape."""
    status = raised.status_code if isinstance(raised, HTTPException) else 500
    method = status == 405
    told = f"{request.method} is not possible at" if method else "There is nothing at"
    error = (BadRequest if method else NotFound)(f"{told} {request.url.path}.")
    if request.url.path.startswith(("/api/", "/internal/", "/static/")):
        body = {"message": error.message, "type": error.type, "param": None, "code": error.code}
        return JSONResponse({"error": body}, status_code=status)
    session = console.sealer.open(request.cookies.get(COOKIE)) or console.sealer.fresh()
    page = console.error_page(request, session, error)
    page.status_code = status
    return page
