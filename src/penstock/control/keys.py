"""Keys and principals: who may call. A key's text is told once, at its creation; only its SHA-256 is kept."""

import base64
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change, Control
from penstock.control.kinds import Origin, parse_spec
from penstock.control.specs.resources import KeySpec
from penstock.core.digests import hash_secret
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.store.schema import keys, principals, resources

PREFIX = "pk-"


def key_text(entropy: bytes) -> str:
    """The text of a key: `pk-` and 43 URL-safe characters.

    Raises:
        ValueError: if `entropy` is not 32 bytes.
    """
    if len(entropy) != 32:
        raise ValueError("a key needs 32 random bytes")
    return PREFIX + base64.urlsafe_b64encode(entropy).rstrip(b"=").decode()


def key_row(row: Any) -> dict[str, Any]:
    """A key as the API tells it: all but its text and hash."""
    return {
        "id": row.id,
        "name": row.name,
        "tenant": row.tenant,
        "principal": row.principal,
        "roles": row.roles,
        "models": row.models,
        "limits": row.limits,
        "model_limits": row.model_limits,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


def _model_limits(spec: KeySpec) -> dict[str, Any]:
    return {model: limits.model_dump(mode="json", exclude_none=True) for model, limits in spec.model_limits.items()}


async def create_key(change: Change, name: str, spec: KeySpec, *, text: str, origin: Origin = "api") -> dict[str, Any]:
    """Create a key whose text is `text`.

    Raises:
        BadRequest: if its tenant or principal is not there, or it could do nothing.
        Forbidden: if the caller belongs to another tenant.
    """
    connection = change.connection
    _check_tenant(change, spec.tenant, spec.principal)
    if spec.tenant is not None:
        statement = select(resources.c.name).where(resources.c.kind == "Tenant", resources.c.name == spec.tenant)
        if (await connection.execute(statement)).one_or_none() is None:
            raise BadRequest(f"There is no tenant {spec.tenant!r}.", param="tenant")
    if spec.principal is not None:
        if spec.roles:
            raise BadRequest("A principal's key has the principal's roles: leave 'roles' out.", param="roles")
        statement = select(principals.c.name).where(
            principals.c.name == spec.principal, principals.c.disabled_at.is_(None)
        )
        if (await connection.execute(statement)).one_or_none() is None:
            raise BadRequest(f"There is no principal {spec.principal!r}.", param="principal")
    elif spec.tenant is None and not spec.roles:
        raise BadRequest("A key needs a tenant, roles or a principal: this one could do nothing.", param="tenant")
    identity = change.new_id("key")
    await connection.execute(
        insert(keys).values(
            id=identity,
            hash=hash_secret(text),
            name=name,
            tenant=spec.tenant,
            principal=spec.principal,
            roles=list(spec.roles),
            models=spec.models,
            limits=spec.limits.model_dump(mode="json", exclude_none=True),
            model_limits=_model_limits(spec),
            origin=origin,
            created_at=change.now,
            expires_at=spec.expires_at,
        )
    )
    await change.audit(
        "key.create", identity, of_tenant=spec.tenant, name=name, tenant=spec.tenant, roles=list(spec.roles)
    )
    row = (await connection.execute(select(keys).where(keys.c.id == identity))).one()
    return key_row(row)


async def revoke_key(change: Change, identity: str) -> dict[str, Any]:
    """Revoke a key; revoking it again changes nothing.

    Raises:
        NotFound: if there is none.
        Conflict: if it is the last one that may create keys.
        Forbidden: if the caller belongs to another tenant.
    """
    row = (await change.connection.execute(select(keys).where(keys.c.id == identity))).one_or_none()
    if row is None:
        raise NotFound(f"There is no key {identity!r}.")
    _check_tenant(change, row.tenant)
    if row.revoked_at is None:
        was_admin = "admin" in await _roles(change.connection, row)
        await change.connection.execute(update(keys).where(keys.c.id == identity).values(revoked_at=change.now))
        if was_admin:
            await check_an_admin_is_left(change)
        await change.audit("key.revoke", identity, of_tenant=row.tenant, name=row.name, tenant=row.tenant)
        row = (await change.connection.execute(select(keys).where(keys.c.id == identity))).one()
    return key_row(row)


async def change_key(change: Change, identity: str, spec: KeySpec) -> dict[str, Any]:
    """Replace the roles, models, limits and expiry of a key; its text and whose it is stay.

    Raises:
        NotFound: if there is no such key, or it was revoked.
        Conflict: if the spec names another tenant or principal, or it is the last admin's key and would be one no more.
    """
    row = (await change.connection.execute(select(keys).where(keys.c.id == identity))).one_or_none()
    if row is None or row.revoked_at is not None:
        raise NotFound(f"There is no key {identity!r} that is valid.")
    _check_tenant(change, row.tenant)
    if (row.tenant, row.principal) != (spec.tenant, spec.principal):
        raise Conflict(f"The key {row.name} belongs to another tenant or principal, which cannot be changed.")
    if spec.principal is not None and spec.roles:
        raise BadRequest("A principal's key has the principal's roles: leave 'roles' out.", param="roles")
    await _replace(change, row, spec, row.origin)
    return key_row((await change.connection.execute(select(keys).where(keys.c.id == identity))).one())


def _check_tenant(change: Change, tenant: str | None, principal: str | None = None) -> None:
    """Who belongs to a tenant has power over its keys alone, with another's it could read what others said; and over none that speak in a principal's name."""
    caller = change.caller
    if tenant is None or principal is not None:
        caller.check_scope("installation")
    caller.held_to(tenant)


async def _replace(change: Change, row: Any, spec: KeySpec, origin: Origin) -> None:
    _check_tenant(change, row.tenant)
    was_admin = "admin" in await _roles(change.connection, row)
    await change.connection.execute(
        update(keys)
        .where(keys.c.id == row.id)
        .values(
            roles=list(spec.roles),
            models=spec.models,
            limits=spec.limits.model_dump(mode="json", exclude_none=True),
            model_limits=_model_limits(spec),
            expires_at=spec.expires_at,
            origin=origin,
        )
    )
    if was_admin:
        await check_an_admin_is_left(change)
    await change.audit("key.put", row.id, of_tenant=row.tenant, name=row.name, roles=list(spec.roles))


async def _roles(connection: AsyncConnection, row: Any) -> list[str]:
    if row.principal is None:
        return list(row.roles)
    found = (await connection.execute(select(principals).where(principals.c.name == row.principal))).one()
    return [] if found.disabled_at is not None else list(found.roles)


async def check_an_admin_is_left(change: Change) -> None:
    """For changes that take power away: without an admin nobody could ever create a key again.

    Raises:
        Conflict: if after `change` no key that is taken has the role admin.
    """
    valid = keys.c.revoked_at.is_(None) & (keys.c.expires_at.is_(None) | (keys.c.expires_at > change.now))
    for row in (await change.connection.execute(select(keys).where(valid))).all():
        if "admin" in await _roles(change.connection, row):
            return
    raise Conflict("This is the last admin's key: create another one first.")


class KeyKind:
    """Keys as resources of `penstock apply`: known by name among the keys that are not revoked."""

    name = "Key"
    plural = "keys"

    def __init__(self, control: Control) -> None:
        self._control = control

    def parse(self, spec: object) -> KeySpec:
        """See `Kind.parse`."""
        return parse_spec(KeySpec, spec)

    def dump(self, spec: KeySpec) -> dict[str, Any]:
        """See `Kind.dump`."""
        return spec.model_dump(mode="json")

    async def current(self, connection: AsyncConnection, origin: Origin | None = None) -> dict[str, dict[str, Any]]:
        """See `Kind.current`."""
        statement = select(keys).where(keys.c.revoked_at.is_(None)).order_by(keys.c.id)
        if origin is not None:
            statement = statement.where(keys.c.origin == origin)
        fields = set(KeySpec.model_fields)
        return {
            row.name: self.dump(KeySpec.model_validate({k: v for k, v in key_row(row).items() if k in fields}))
            for row in await connection.execute(statement)
        }

    async def put(self, change: Change, name: str, spec: KeySpec, origin: Origin) -> dict[str, Any]:
        """Create the key, telling its text; one that is there has its roles, models, limits and expiry replaced.

        Raises:
            Conflict: if it is there with another tenant or principal, which would be another key, or is the last admin's and would
                be one no more.
        """
        statement = select(keys).where(keys.c.name == name, keys.c.revoked_at.is_(None))
        row = (await change.connection.execute(statement)).first()
        if row is None:
            text = key_text(self._control.entropy(32))
            created = await create_key(change, name, spec, text=text, origin=origin)
            return {"id": created["id"], "key": text}
        if (row.tenant, row.principal) != (spec.tenant, spec.principal):
            raise Conflict(f"The key {name} belongs to another tenant or principal: revoke it, or use another name.")
        await _replace(change, row, spec, origin)
        return {}

    async def delete(self, change: Change, name: str) -> None:
        """See `Kind.delete`."""
        statement = select(keys.c.id).where(keys.c.name == name, keys.c.revoked_at.is_(None))
        identities = (await change.connection.execute(statement)).scalars().all()
        if not identities:
            raise NotFound(f"There is no key {name!r}.")
        for identity in identities:
            await revoke_key(change, identity)
