from typing import get_args

from penstock.access.principals import ROLES, Permission, Principal, Role, allows, may_call
from penstock.core.snapshot import KeyEntry, TenantEntry


def test_every_role_is_in_the_table_and_admin_may_everything() -> None:
    assert set(ROLES) == set(get_args(Role))
    assert ROLES["admin"] == set(get_args(Permission))
    assert all(permissions <= ROLES["admin"] for permissions in ROLES.values())


def test_who_may_change_what() -> None:
    assert {r for r in ROLES if allows([r], "tenants:write")} == {"admin"}
    assert {r for r in ROLES if allows([r], "keys:write")} == {"admin"}
    assert {r for r in ROLES if allows([r], "deployments:write")} == {"admin", "operator"}
    assert {r for r in ROLES if allows([r], "audit:read")} == {"admin", "auditor"}
    assert not any(p.endswith(":write") for p in ROLES["auditor"])
    assert not allows(["nobody"], "models:read")
    assert not allows([], "models:read")
    assert Principal(key="k", tenant="t", roles=("analyst", "auditor")).may("audit:read")


def test_a_route_must_be_in_the_keys_and_the_tenants_list() -> None:
    tenant = TenantEntry(name="t", models=("a", "b"))
    key = KeyEntry(id="k", hash="", tenant="t", models=("b", "c"))
    assert [m for m in "abc" if may_call(key, tenant, m)] == ["b"]
    assert may_call(KeyEntry(id="k", hash="", tenant="t"), TenantEntry(name="t"), "anything")
    assert not may_call(KeyEntry(id="k", hash="", tenant="t", models=()), TenantEntry(name="t"), "a")
    assert not may_call(KeyEntry(id="k", hash="", tenant="t", roles=("auditor",)), TenantEntry(name="t"), "a")
    assert may_call(KeyEntry(id="k", hash="", tenant="t", roles=("auditor", "developer")), TenantEntry(name="t"), "a")
