"""Keys and tenants: who may call."""

import msgspec
from starlette.responses import Response

from penstock.access.principals import ROLES
from penstock.console.client import at
from penstock.console.forms import optional_number
from penstock.console.shapes import Key, Person, Tenant
from penstock.console.visit import Visit, allowed
from penstock.core.errors import NotFound

LIMITS = (
    ("requests_per_minute", "Requests a minute"),
    ("requests_per_day", "Requests in 24 hours"),
    ("requests_per_month", "Requests in 30 days"),
    ("tokens_per_minute", "Tokens a minute"),
    ("tokens_per_day", "Tokens in 24 hours"),
    ("tokens_per_month", "Tokens in 30 days"),
    ("concurrency", "Requests at a time"),
    ("usd_per_minute", "US dollars a minute"),
    ("usd_per_day", "US dollars in 24 hours"),
    ("usd_per_month", "US dollars in 30 days"),
)  # fields of the form, and what they are called


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
        limits=LIMITS,
        now=visit.console.clock(),
        may_see=visit.may("tenants:read", "tenant"),
        may_write_keys=visit.may("keys:write", "tenant"),
    )


async def create_key(visit: Visit) -> Response:
    """Make a key, and show its text this once."""
    form = await visit.form()
    body = {
        "name": form.get("name", ""),
        "tenant": form.get("tenant") or None,
        "roles": [form["role"]] if form.get("role") else [],
        "limits": _limits(form),
    }
    return await _page(visit, msgspec.convert(await visit.api.post("/keys", body), Created))


def _limits(form: dict[str, str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for name, _ in LIMITS:
        most = optional_number(form, name, 0, 4e6 if name.startswith("usd_") else 1e9)
        if most is not None:
            limits[name] = most if name.startswith("usd_") else int(most)
    return limits


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
