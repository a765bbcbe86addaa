"""Keys and tenants: who may call."""

import msgspec
from starlette.responses import Response

from penstock.access.principals import ROLES
from penstock.console.client import at
from penstock.console.forms import optional_number
from penstock.console.shapes import Key, Person, Tenant
from penstock.console.visit import Visit, allowed
from penstock.core.errors import NotFound


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """A new key with its text, which is told this once."""

    id: str
    text: str = msgspec.field(name="key")
    name: str = ""


async def show(visit: Visit) -> Response:
    """The page."""
    return await _page(visit, None)


async def _page(visit: Visit, created: Created | None) -> Response:
    keys: tuple[Key, ...] = ()
    if visit.may("tenants:read", "tenant"):
        keys = await visit.api.get("/keys", tuple[Key, ...])
    return visit.page(
        "access.html",
        keys=sorted(keys, key=lambda key: (key.revoked_at is not None, key.tenant or "", key.created_at)),
        tenants=await allowed(visit.api.get("/tenants", tuple[Tenant, ...]), ()),
        people=await allowed(visit.api.get("/principals", tuple[Person, ...]), ()),
        created=created,
        of_tenant=visit.me.tenant,
        roles=tuple(ROLES),
        now=visit.console.clock(),
        may_see=visit.may("tenants:read", "tenant"),
        may_write_keys=visit.may("keys:write", "tenant"),
    )


async def create_key(visit: Visit) -> Response:
    """Make a key, and show its text this once."""
    form = await visit.form()
    rate = optional_number(form, "rpm", 1, 1e9)
    body = {
        "name": form.get("name", ""),
        "tenant": form.get("tenant") or None,
        "roles": [form["role"]] if form.get("role") else [],
        "limits": {"requests_per_minute": int(rate)} if rate is not None else {},
    }
    return await _page(visit, msgspec.convert(await visit.api.post("/keys", body), Created))


async def confirm_revoke(visit: Visit) -> Response:
    """Ask before a key is revoked."""
    visit.must("keys:write", "tenant")
    wanted = visit.query("id")
    for key in await visit.api.get("/keys", tuple[Key, ...]):
        if key.id == wanted:
            return visit.page("revoke.html", k=key)
    raise NotFound(f"There is no key {wanted!r}.")


async def revoke(visit: Visit) -> Response:
    """Revoke a key."""
    form = await visit.form()
    await visit.api.post(at("keys", form.get("id", ""), "revoke"))
    return visit.to("/access", "revoked")
