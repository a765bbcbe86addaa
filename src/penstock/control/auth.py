"""Who is calling: a bearer key, or the console's session cookie, becomes a `Principal`; each endpoint names its permission."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from fastapi import Depends, Request, Response
from sqlalchemy import Row, select

from penstock.access.principals import Principal, allows
from penstock.control.context import Control
from penstock.core.digests import hash_secret
from penstock.core.errors import Forbidden, Unauthenticated
from penstock.store.schema import keys, principals

SESSION_COOKIE = "penstock_session"
SESSION_S = 12 * 3600.0
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Session(msgspec.Struct, frozen=True, array_like=True):
    """What the cookie says: the key that signed in, and until when (Unix seconds)."""

    key: str
    expires_at: float


def get_control(request: Request) -> Control:
    """The app's `Control`."""
    control: Control = request.app.state.control
    return control


ControlPart = Annotated[Control, Depends(get_control)]


async def principal_of_key(control: Control, text: str) -> Principal:
    """Whoever holds the key `text`.

    Raises:
        Unauthenticated: if the key is unknown, revoked, expired, or its principal is disabled.
    """
    return await _principal(control, keys.c.hash == hash_secret(text))


async def _principal(control: Control, condition: object) -> Principal:
    statement = (
        select(keys, principals.c.roles.label("principal_roles"), principals.c.disabled_at)
        .select_from(keys.outerjoin(principals, keys.c.principal == principals.c.name))
        .where(condition)  # type: ignore[arg-type]
    )
    async with control.database.read() as connection:
        row = (await connection.execute(statement)).one_or_none()
    if row is None or not _valid(row, control.clock()):
        raise Unauthenticated(
            "This key is not known, or no longer valid.", hint="Give a key with --key or PENSTOCK_KEY."
        )
    roles = tuple(row.roles) if row.principal is None else tuple(row.principal_roles)
    return Principal(name=row.principal or row.name, key=row.id, roles=roles, tenant=row.tenant)


def _valid(row: Row[tuple[object, ...]], now: float) -> bool:
    return row.revoked_at is None and row.disabled_at is None and (row.expires_at is None or row.expires_at > now)


async def caller(request: Request, control: ControlPart) -> Principal:
    """The caller, by `Authorization: Bearer KEY` or by the console's cookie.

    A cookie is taken for a change only if the browser says that the request comes from a page of ours.

    Raises:
        Unauthenticated: if neither is there or valid.
        Forbidden: if a change came with the cookie from another site.
    """
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise Unauthenticated("The Authorization header must be 'Bearer KEY'.")
        return await principal_of_key(control, text.strip())
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie is None:
        raise Unauthenticated("A key is needed: send 'Authorization: Bearer KEY'.")
    if request.method not in _SAFE and not same_origin(request):
        raise Forbidden("This change did not come from the console's own pages.", code="cross_site")
    return await principal_of_session(control, cookie)


Caller = Annotated[Principal, Depends(caller)]


def needs(permission: str) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the caller, who must hold `permission`."""
    allows((), permission)  # an unknown permission fails when the app is built

    async def check(who: Caller) -> Principal:
        if not allows(who.roles, permission):
            raise Forbidden(
                f"{who.name} may not do this: it needs the permission {permission!r}, and the roles are "
                f"{', '.join(who.roles) or 'none'}."
            )
        return who

    return check


def check_service(request: Request, control: ControlPart) -> None:
    """A dependency of /internal: the caller must show the service token.

    Raises:
        Unauthenticated: if it does not.
    """
    header = request.headers.get("authorization", "")
    if not hmac.compare_digest(header.encode(), f"Bearer {control.service_token}".encode()):
        raise Unauthenticated("The service token is needed here.", code="invalid_service_token")


def _session_secret(control: Control) -> bytes:
    # derived, so that all control processes of one house share it and it is gone with the service token
    return hmac.digest(control.service_token.encode(), b"penstock console session", hashlib.sha256)


def seal_session(control: Control, key_id: str) -> str:
    """The cookie's text for who signed in with the key `key_id`: valid for `SESSION_S` seconds, or until the key is revoked."""
    body = msgspec.json.encode(Session(key_id, control.clock() + SESSION_S))
    mark = hmac.digest(_session_secret(control), body, hashlib.sha256)
    return base64.urlsafe_b64encode(mark + body).decode()


async def principal_of_session(control: Control, cookie: str) -> Principal:
    """Whoever signed in with this cookie.

    Raises:
        Unauthenticated: if it is forged or has run out, or its key is no longer valid.
    """
    try:
        raw = base64.urlsafe_b64decode(cookie.encode())
        mark, body = raw[:32], raw[32:]
        if not hmac.compare_digest(mark, hmac.digest(_session_secret(control), body, hashlib.sha256)):
            raise Unauthenticated("This session is not one of ours.", code="invalid_session")
        session = msgspec.json.decode(body, type=Session)
    except (binascii.Error, UnicodeEncodeError, msgspec.DecodeError):
        raise Unauthenticated("This session is not one of ours.", code="invalid_session") from None
    if session.expires_at <= control.clock():
        raise Unauthenticated("This session has run out: sign in again.", code="session_expired")
    return await _principal(control, keys.c.id == session.key)


async def sign_in(control: Control, response: Response, key_text: str, *, secure: bool = False) -> Principal:
    """Set the session cookie on `response` for the holder of `key_text`.

    Raises:
        Unauthenticated: if the key is not valid.
    """
    who = await principal_of_key(control, key_text)
    response.set_cookie(
        SESSION_COOKIE,
        seal_session(control, who.key),
        max_age=int(SESSION_S),
        httponly=True,
        samesite="strict",
        secure=secure,
        path="/",
    )
    return who


def sign_out(response: Response) -> None:
    """Take the session cookie away."""
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")


def same_origin(request: Request) -> bool:
    """Whether the browser says that a page of this very site sent the request."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] == request.headers.get("host")
