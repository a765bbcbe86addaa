"""Who is calling: a bearer key becomes a `Principal`, and each endpoint names the permission that it needs."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Row, select

from penstock.access.principals import Permission, Principal, allows
from penstock.control.context import Control
from penstock.core.digests import hash_secret
from penstock.core.errors import Forbidden, Unauthenticated
from penstock.store.schema import keys, principals


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
    statement = (
        select(keys, principals.c.roles.label("principal_roles"), principals.c.disabled_at)
        .select_from(keys.outerjoin(principals, keys.c.principal == principals.c.name))
        .where(keys.c.hash == hash_secret(text))
    )
    async with control.database.read() as connection:
        row = (await connection.execute(statement)).one_or_none()
    if row is None or not _valid(row, control.clock()):
        raise Unauthenticated(
            "This key is not known, or no longer valid.", hint="Give a key with --key or PENSTOCK_KEY."
        )
    roles = tuple(row.roles) if row.principal is None else tuple(row.principal_roles)
    return Principal(name=row.principal or row.name, key=row.id, roles=roles, tenant=row.tenant or "")


def _valid(row: Row[tuple[object, ...]], now: float) -> bool:
    return row.revoked_at is None and row.disabled_at is None and (row.expires_at is None or row.expires_at > now)


async def caller(request: Request, control: ControlPart) -> Principal:
    """The caller, by `Authorization: Bearer KEY`.

    Raises:
        Unauthenticated: if there is no such header, or its key is not valid.
    """
    header = request.headers.get("authorization")
    if header is None:
        raise Unauthenticated("A key is needed: send 'Authorization: Bearer KEY'.")
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated("The Authorization header must be 'Bearer KEY'.")
    return await principal_of_key(control, text.strip())


Caller = Annotated[Principal, Depends(caller)]


def needs(permission: Permission) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the caller, who must hold `permission`."""

    async def check(who: Caller) -> Principal:
        check_permission(who, permission)
        return who

    return check


def check_permission(who: Principal, permission: Permission) -> None:
    """See that one of the roles of `who` gives `permission`.

    Raises:
        Forbidden: if none does.
    """
    if not allows(who.roles, permission):
        raise Forbidden(
            f"{who.name} may not do this: it needs the permission {permission!r}, and the roles are "
            f"{', '.join(who.roles) or 'none'}."
        )


def check_service(request: Request, control: ControlPart) -> None:
    """A dependency of /internal: the caller must show the service token.

    Raises:
        Unauthenticated: if it does not.
    """
    header = request.headers.get("authorization", "")
    if not hmac.compare_digest(header.encode(), f"Bearer {control.service_token}".encode()):
        raise Unauthenticated("The service token is needed here.", code="invalid_service_token")
