"""Every error leaves the API in one shape: `{"error": {"message", "type", "param", "code"[, "hint"]}}`."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from penstock.core.errors import BadRequest, Forbidden, NotFound, PenstockError, Unauthenticated

_LOG = logging.getLogger("penstock.control")


def error_response(error: PenstockError) -> JSONResponse:
    """`error` as the API answers it."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if error.hint is not None:
        body["hint"] = error.hint
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)


def validation_error(error: ValidationError | RequestValidationError, root: str = "") -> BadRequest:
    """The first thing that a model refused, named by its path (`spec.limits.requests_per_minute`)."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    if not root and location and location[0] in {"body", "query", "path", "header"}:
        location = location[1:]
    path = ".".join([root, *location] if root else location)
    message = str(first["msg"])
    if first["type"] == "extra_forbidden":
        return BadRequest(f"{path} is no field that is known here.", param=path, code="unknown_field")
    return BadRequest(f"{path or 'The body'}: {message}.", param=path or None)


def install_error_handlers(app: FastAPI) -> None:
    """Map the error tree, and what the framework raises by itself, to answers."""

    @app.exception_handler(PenstockError)
    async def _ours(_request: Request, error: PenstockError) -> JSONResponse:
        if error.status >= 500:
            _LOG.error("%s: %s", type(error).__name__, error.message)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(validation_error(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        kinds: dict[int, type[PenstockError]] = {401: Unauthenticated, 403: Forbidden, 404: NotFound}
        kind = kinds.get(error.status_code, BadRequest)
        text = f"{request.method} {request.url.path}: {error.detail}."
        response = error_response(kind(text, code=str(error.detail).lower().replace(" ", "_")))
        response.status_code = error.status_code
        return response

    @app.exception_handler(ClientDisconnect)
    async def _gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return error_response(BadRequest("The body broke off.", param="body"))  # nobody reads it

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        _LOG.exception("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(PenstockError("Control failed at this request; its log says how."))
