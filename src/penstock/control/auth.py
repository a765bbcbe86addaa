"""Who is calling: a bearer key becomes a `Principal`, and each endpoint names the permission that it needs and whose it is.

An endpoint is the installation's unless it says that it holds its callers to their tenant: one that nobody thought about is closed to
those who belong to a tenant.
"""

import hmac
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Permission, Principal, Scope
from penstock.control.context import Control
from penstock.control.logins import CONSOLE, FORWARDED
from penstock.core.digests import hash_secret
from penstock.core.errors import Forbidden, Unauthenticated
from penstock.store.schema import keys, principals


def get_control(request: Request) -> Control:
    """The app's `Control`."""
    control: Control = request.app.state.control
    return control


ControlPart = Annotated[Control, Depends(get_control)]


async def principal_of_key(control: Control, text: str, address: str) -> Principal:
    """Whoever holds the key `text`, which came from `address`.

    Raises:
        RateLimited: if too many keys that nobody knows came from there.
        Unauthenticated: if the key is unknown, revoked, expired, or its principal is disabled.
    """
    hashed = hash_secret(text)
    control.logins.check(address, hashed)
    async with control.database.read() as connection:
        who = await read_principal(connection, keys.c.hash == hashed, control.clock())
    if who is None:
        control.logins.failed(address)
        control.logins.wrong(hashed)
        raise Unauthenticated(
            "This key is not known, or no longer valid.", hint="Give a key with --key or PENSTOCK_KEY."
        )
    control.logins.right(hashed)
    return who


async def read_principal(connection: AsyncConnection, which: ColumnElement[bool], now: float) -> Principal | None:
    """Whoever holds the key of the table `keys` that `which` picks, with the roles of this moment; None: there is none, or it is not valid."""
    statement = (
        select(
            keys, principals.c.id.label("person"), principals.c.roles.label("principal_roles"), principals.c.disabled_at
        )
        .select_from(keys.outerjoin(principals, keys.c.principal == principals.c.name))
        .where(which)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None or not _valid(row, now):
        return None
    roles = tuple(row.roles) if row.principal is None else tuple(row.principal_roles)
    return Principal(
        name=row.principal or row.name, key=row.id, roles=roles, tenant=row.tenant or "", person=row.person or ""
    )


def _valid(row: Row[tuple[object, ...]], now: float) -> bool:
    return row.revoked_at is None and row.disabled_at is None and (row.expires_at is None or row.expires_at > now)


async def caller(request: Request, control: ControlPart) -> Principal:
    """The caller, by `Authorization: Bearer KEY`.

    Raises:
        Unauthenticated: if there is no such header, or its key is not valid.
        RateLimited: if too many that were not came from the caller's address.
    """
    header = request.headers.get("authorization")
    if header is None:
        raise Unauthenticated("A key is needed: send 'Authorization: Bearer KEY'.")
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated("The Authorization header must be 'Bearer KEY'.")
    return await principal_of_key(control, text.strip(), _address(request))


def _address(request: Request) -> str:
    """Where the request comes from; of the console's, where that of its visitor does."""
    host = request.client.host if request.client is not None else ""
    return request.headers.get(FORWARDED, host) if host == CONSOLE else host


Caller = Annotated[Principal, Depends(caller)]


class Needs:
    """A dependency of an endpoint: the caller, who must hold a permission, and whom its scope lets in.

    Attributes:
        permissions: one of them will do; none: every key.
        scope: whose it is that the endpoint shows or changes.
    """

    def __init__(self, *permissions: Permission, scope: Scope) -> None:
        self.permissions = permissions
        self.scope: Scope = scope

    async def __call__(self, who: Caller) -> Principal:
        """The caller.

        Raises:
            Forbidden: if no role of theirs gives a permission, or they belong to a tenant and this is the installation's.
        """
        if self.permissions and not any(who.may(one) for one in self.permissions):
            raise _lacks(who, self.permissions)
        who.check_scope(self.scope)
        return who


def needs(*permissions: Permission) -> Needs:
    """A dependency: the caller, who holds one of `permissions` and belongs to no tenant."""
    return Needs(*permissions, scope="installation")


def needs_in_tenant(*permissions: Permission) -> Needs:
    """A dependency: the caller, who holds one of `permissions`. The endpoint asks `Principal.held_to` or `sees` for what it touches."""
    return Needs(*permissions, scope="tenant")


def check_permission(who: Principal, permission: Permission) -> None:
    """See that one of the roles of `who` gives `permission`.

    Raises:
        Forbidden: if none does.
    """
    if not who.may(permission):
        raise _lacks(who, (permission,))


def _lacks(who: Principal, permissions: tuple[Permission, ...]) -> Forbidden:
    wanted = " or ".join(repr(one) for one in permissions)
    return Forbidden(
        f"{who.name} may not do this: it needs the permission {wanted}, and the roles are {', '.join(who.roles) or 'none'}."
    )


def check_service(request: Request, control: ControlPart) -> None:
    """A dependency of /internal: the caller must show the service token.

    Raises:
        Unauthenticated: if it does not.
    """
    header = request.headers.get("authorization", "")
    if not hmac.compare_digest(header.encode(), f"Bearer {control.service_token}".encode()):
        raise Unauthenticated("The service token is needed here.", code="invalid_service_token")
