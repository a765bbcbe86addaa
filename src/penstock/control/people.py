"""People: principals by ids that neither a new name nor a new key changes."""

from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.keys import check_an_admin_is_left, key_row
from penstock.core.errors import Conflict, NotFound
from penstock.core.references import check_name
from penstock.store.schema import keys, principals, uploads


async def create_principal(change: Change, name: str, roles: tuple[str, ...], *, origin: str = "api") -> Row[Any]:
    """A new principal: a person or a program, whose keys carry `roles`.

    Raises:
        Conflict: if there is one of that name.
    """
    await _check_free(change.connection, name)
    await change.connection.execute(
        insert(principals).values(
            id=change.new_id("prn"), name=name, roles=list(roles), origin=origin, created_at=change.now
        )
    )
    await change.audit("principal.create", name, roles=list(roles))
    return await find_principal(change.connection, name)


async def find_principal(connection: AsyncConnection, name: str) -> Row[Any]:
    """The principal `name`.

    Raises:
        NotFound: if there is none.
    """
    row = (await connection.execute(select(principals).where(principals.c.name == name))).one_or_none()
    if row is None:
        raise NotFound(
            f"There is no principal {name!r}.",
            param="principal",
            hint="penstock principals create NAME --role ROLE makes one.",
        )
    return row


async def rename_principal(change: Change, name: str, to: str) -> Row[Any]:
    """Call a principal otherwise: its keys, its pushes and its approvals stay its own.

    Raises:
        NotFound: if there is none.
        BadRequest: if `to` is no name.
        Conflict: if there is one of that name.
    """
    check_name(to)
    connection = change.connection
    row = await find_principal(connection, name)
    await _check_free(connection, to)
    mine = (await connection.execute(select(keys.c.id).where(keys.c.principal == name))).scalars().all()
    await connection.execute(
        update(keys).where(keys.c.id.in_(mine)).values(principal=None)
    )  # no key may point at nobody
    await connection.execute(update(principals).where(principals.c.id == row.id).values(name=to))
    await connection.execute(update(keys).where(keys.c.id.in_(mine)).values(principal=to))
    await connection.execute(
        update(uploads).where(uploads.c.principal == name, uploads.c.state == "open").values(principal=to)
    )
    await change.audit("principal.rename", to, before=name)
    return await find_principal(connection, to)


async def adopt_key(change: Change, identity: str, name: str) -> dict[str, Any]:
    """Say whose a key is that belonged to nobody: it carries the principal's roles from now on, and what was pushed with it was pushed by them.

    Raises:
        NotFound: if there is no such key or principal.
        Conflict: if the key belongs to somebody, belongs to a tenant, or is the last admin's and would be one no more.
    """
    connection = change.connection
    key = (await connection.execute(select(keys).where(keys.c.id == identity))).one_or_none()
    if key is None:
        raise NotFound(f"There is no key {identity!r}.")
    row = await find_principal(connection, name)
    if row.disabled_at is not None:
        raise Conflict(f"The principal {name} is disabled.", param="principal")
    if key.principal is not None:
        raise Conflict(f"The key {key.name} belongs to {key.principal} already.", param="principal")
    if key.tenant is not None and not key.roles:
        raise Conflict(f"The key {key.name} is an application's, and calls models alone: it is nobody's.", param="id")
    await connection.execute(update(keys).where(keys.c.id == identity).values(principal=name, roles=[]))
    if "admin" in key.roles and "admin" not in row.roles:
        await check_an_admin_is_left(change)
    await change.audit("key.adopt", identity, of_tenant=key.tenant, name=key.name, to=name, roles=list(key.roles))
    return key_row((await connection.execute(select(keys).where(keys.c.id == identity))).one())


async def _check_free(connection: AsyncConnection, name: str) -> None:
    if (await connection.execute(select(principals.c.name).where(principals.c.name == name))).one_or_none() is not None:
        raise Conflict(f"There is a principal {name!r} already.", param="name")
