"""Who calls, what the roles allow, and which routes a key may call."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from penstock.core.errors import Forbidden
from penstock.core.snapshot import KeyEntry, TenantEntry

Role = Literal["admin", "operator", "developer", "analyst", "auditor"]
Scope = Literal[
    "tenant",  # a tenant's own: whoever belongs to one is held to it
    "installation",  # what all tenants share: refused to those who belong to one
]
Permission = Literal[
    "models:read",  # versions, cards, history
    "models:write",  # push, edit cards
    "deployments:read",
    "deployments:write",  # promote, roll back, pools, routes
    "gates:override",  # let a version in whose gates are not passed
    "experiments:read",
    "experiments:write",
    "tenants:read",
    "tenants:write",  # tenants, their limits and policies
    "keys:write",  # create and revoke
    "usage:read",  # usage, cost, statistics
    "audit:read",  # exchanges and the trail of changes
    "content:read",  # what was asked and answered, where it is kept
    "subjects:forget",  # destroy the keys that it is kept under
    "inference",  # call models at the gateway
]

ROLES: dict[str, frozenset[Permission]] = {
    "admin": frozenset(
        (
            "models:read",
            "models:write",
            "deployments:read",
            "deployments:write",
            "gates:override",
            "experiments:read",
            "experiments:write",
            "tenants:read",
            "tenants:write",
            "keys:write",
            "usage:read",
            "audit:read",
            "content:read",
            "subjects:forget",
            "inference",
        )
    ),
    "operator": frozenset(
        (
            "models:read",
            "models:write",
            "deployments:read",
            "deployments:write",
            "experiments:read",
            "experiments:write",
            "tenants:read",
            "usage:read",
            "inference",
        )
    ),
    "developer": frozenset(
        ("models:read", "models:write", "deployments:read", "experiments:read", "usage:read", "inference")
    ),
    "analyst": frozenset(("models:read", "deployments:read", "experiments:read", "experiments:write", "usage:read")),
    "auditor": frozenset(
        (
            "models:read",
            "deployments:read",
            "experiments:read",
            "tenants:read",
            "usage:read",
            "audit:read",
            "content:read",
        )
    ),
}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from, once its key has been found."""

    key: str  # id
    tenant: str
    name: str = ""
    roles: tuple[str, ...] = ()
    person: str = (
        ""  # id of the named principal, which no renaming and no new key changes; "": the key is its own principal
    )

    def may(self, permission: Permission) -> bool:
        """Whether one of its roles gives `permission`."""
        return allows(self.roles, permission)

    def held_to(self, tenant: str | None = None) -> str | None:
        """The tenant whose rows the caller is shown or may change: its own if it has one, else the one it asks for; None: all.

        Raises:
            Forbidden: if it belongs to a tenant and asks for another.
        """
        if self.tenant and tenant not in {None, self.tenant}:
            raise Forbidden(
                f"{self.name} belongs to the tenant {self.tenant!r}, and is held to it: {tenant!r} is another.",
                code="other_tenant",
                param="tenant",
                hint=_OF_NO_TENANT,
            )
        return self.tenant or tenant

    def sees(self, tenant: str) -> bool:
        """Whether what belongs to `tenant` is the caller's to see."""
        return not self.tenant or tenant == self.tenant

    def check_scope(self, scope: Scope) -> None:
        """See that the caller may act on what is of `scope`.

        Raises:
            Forbidden: if it belongs to a tenant, and this is the installation's.
        """
        if scope == "installation" and self.tenant:
            raise Forbidden(
                f"This belongs to the whole installation, and {self.name} belongs to the tenant {self.tenant!r}.",
                code="held_to_tenant",
                hint=_OF_NO_TENANT,
            )


_OF_NO_TENANT = "Use a key that belongs to no tenant: `penstock keys create --name NAME --role ROLE`."


def allows(roles: Iterable[str], permission: Permission) -> bool:
    """Whether one of `roles` gives `permission`. A role that is not known gives nothing."""
    return any(permission in ROLES.get(role, ()) for role in roles)


def may_call(key: KeyEntry, tenant: TenantEntry, route: str) -> bool:
    """Whether `key` may call `route`: both its own list of models and its tenant's must have it; no list has all.

    It is asked about the route that is dispatched to. A key with roles needs one that gives `inference`; a key without roles is an
    application's own, which may do nothing else.
    """
    if key.models is not None and route not in key.models:
        return False
    if tenant.models is not None and route not in tenant.models:
        return False
    return not key.roles or allows(key.roles, "inference")
