"""Who calls, and what each role may do at the control plane (the data plane asks `models` of the key)."""

from collections.abc import Iterable

import msgspec

# Each permission and what it opens. `docs/reference/api.md` lists the roles that hold it.
PERMISSIONS: dict[str, str] = {
    "models.read": "see models, versions, cards and files",
    "models.write": "push versions",
    "deployments.read": "see what is deployed where, and its history",
    "deployments.write": "promote and roll back",
    "resources.read": "see pools, routes, policies, environments and tenants",
    "resources.write": "change pools and routes",
    "experiments.read": "see experiments and their results",
    "experiments.write": "create experiments",
    "experiments.run": "start, pause and stop experiments",
    "status.read": "see gateways, replicas and figures",
    "tenants.write": "change tenants, policies and environments",
    "keys.read": "see keys (never their text)",
    "keys.write": "create and revoke keys, name principals",
    "audit.read": "read the audit trail",
}

_READ = frozenset({"models.read", "deployments.read", "resources.read", "experiments.read", "status.read"})

ROLES: dict[str, frozenset[str]] = {
    "admin": frozenset(PERMISSIONS),
    "operator": _READ
    | {"models.write", "deployments.write", "resources.write", "experiments.write", "experiments.run", "keys.read"},
    "developer": _READ | {"models.write", "experiments.write"},
    "analyst": _READ,
    "auditor": _READ | {"keys.read", "audit.read"},
}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls. `tenant` is none for people who run the whole house."""

    name: str
    key: str = ""  # id of the key that was shown
    roles: tuple[str, ...] = ()
    tenant: str | None = None


def allows(roles: Iterable[str], permission: str) -> bool:
    """Whether one of `roles` holds `permission`; an unknown role holds none.

    Raises:
        KeyError: if there is no such permission.
    """
    if permission not in PERMISSIONS:
        raise KeyError(permission)
    return any(permission in ROLES.get(role, frozenset()) for role in roles)
