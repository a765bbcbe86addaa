"""/api/v1/keys and /api/v1/principals."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field
from sqlalchemy import select, update

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs, needs_in_tenant
from penstock.control.keys import change_key, check_an_admin_is_left, create_key, key_row, key_text, revoke_key
from penstock.control.people import adopt_key, create_principal, find_principal, rename_principal
from penstock.control.specs.resources import KeySpec, Name, Spec
from penstock.store.schema import keys, principals

router = APIRouter()
Reader = Annotated[Principal, Depends(needs_in_tenant("tenants:read"))]
Writer = Annotated[Principal, Depends(needs_in_tenant("keys:write"))]
Namer = Annotated[Principal, Depends(needs("keys:write"))]  # people are the installation's
Directory = Annotated[Principal, Depends(needs("tenants:read"))]


class NewKey(KeySpec):
    """The body of POST /keys."""

    name: Name


class NewPrincipal(Spec):
    """The body of POST /principals."""

    name: Name
    roles: list[str] = Field(min_length=1)


class NewName(Spec):
    """The body of POST /principals/{name}/rename."""

    to: Name


class Adoption(Spec):
    """The body of POST /keys/{identity}/adopt."""

    principal: Name


@router.get("/keys", tags=["keys"])
async def list_keys(control: ControlPart, who: Reader, tenant: str | None = None) -> list[dict[str, Any]]:
    """All keys, revoked ones too; never their text."""
    statement = select(keys).order_by(keys.c.id)
    tenant = who.held_to(tenant)
    if tenant is not None:
        statement = statement.where(keys.c.tenant == tenant)
    async with control.database.read() as connection:
        return [key_row(row) for row in await connection.execute(statement)]


@router.post("/keys", tags=["keys"], status_code=201)
async def new_key(body: NewKey, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Create a key; `key` in the answer is its text, told this once."""
    text = key_text(control.entropy(32))
    spec = KeySpec.model_validate(body.model_dump(exclude={"name"}))
    async with control.change(who) as change:
        created = await create_key(change, body.name, spec, text=text)
    return {**created, "key": text}


@router.put("/keys/{identity}", tags=["keys"])
async def change(identity: str, body: KeySpec, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Replace a key's roles, models, limits and expiry; its text and whose it is stay."""
    async with control.change(who) as changing:
        return await change_key(changing, identity, body)


@router.post("/keys/{identity}/revoke", tags=["keys"])
async def revoke(identity: str, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Revoke a key: gateways refuse it within a second."""
    async with control.change(who) as change:
        return await revoke_key(change, identity)


@router.delete("/keys/{identity}", tags=["keys"], status_code=204)
async def remove(identity: str, control: ControlPart, who: Writer) -> None:
    """The same as POST /keys/{id}/revoke."""
    async with control.change(who) as change:
        await revoke_key(change, identity)


@router.get("/principals", tags=["principals"])
async def list_principals(control: ControlPart, _who: Directory) -> list[dict[str, Any]]:
    """All named principals."""
    async with control.database.read() as connection:
        rows = await connection.execute(select(principals).order_by(principals.c.name))
        return [_principal(row) for row in rows]


@router.post("/principals", tags=["principals"], status_code=201)
async def new_principal(body: NewPrincipal, control: ControlPart, who: Namer) -> dict[str, Any]:
    """Name a principal: a person or a program, with roles; its keys carry these."""
    spec = KeySpec.model_validate({"roles": body.roles})
    async with control.change(who) as change:
        return _principal(await create_principal(change, body.name, tuple(spec.roles)))


@router.post("/principals/{name}/rename", tags=["principals"])
async def rename(name: str, body: NewName, control: ControlPart, who: Namer) -> dict[str, Any]:
    """Call a principal otherwise: its keys, its pushes and its approvals stay its own."""
    async with control.change(who) as change:
        return _principal(await rename_principal(change, name, body.to))


@router.post("/keys/{identity}/adopt", tags=["keys"])
async def adopt(identity: str, body: Adoption, control: ControlPart, who: Namer) -> dict[str, Any]:
    """Say whose a key is that belonged to nobody: it has that principal's roles from now on, and what was pushed with it was pushed by them."""
    async with control.change(who) as change:
        return await adopt_key(change, identity, body.principal)


@router.post("/principals/{name}/disable", tags=["principals"])
async def disable(name: str, control: ControlPart, who: Namer) -> dict[str, Any]:
    """Disable a principal: none of its keys is taken any more."""
    async with control.change(who) as change:
        row = await find_principal(change.connection, name)
        if row.disabled_at is None:
            await change.connection.execute(
                update(principals).where(principals.c.name == name).values(disabled_at=change.now)
            )
            if "admin" in row.roles:
                await check_an_admin_is_left(change)
            await change.audit("principal.disable", name)
            row = await find_principal(change.connection, name)
    return _principal(row)


def _principal(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "roles": row.roles,
        "created_at": row.created_at,
        "disabled_at": row.disabled_at,
    }
