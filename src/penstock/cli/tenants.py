"""`penstock tenants`: who uses the gateway."""

from typing import Any

import click

from penstock.cli.resource import (
    Command,
    given_limits,
    given_model_limits,
    limit_flags,
    model_limit_flag,
    old_spec,
    put,
    remove,
)
from penstock.cli.session import Session, with_session
from penstock.cli.show import table


@click.group()
def tenants() -> None:
    """Who uses the gateway: priority, share and limits of each."""


def _tenant_flags(command: Command) -> Command:
    for option in reversed(
        (
            click.option("--priority", type=click.Choice(["batch", "standard", "premium"]), help="Class in queues."),
            click.option("--weight", type=click.FloatRange(0, min_open=True), help="Share among its class."),
            click.option("--policy", help="Policy of its requests."),
            click.option("--model", "models", multiple=True, help="Route it may call; again for more [default: all]."),
        )
    ):
        command = option(command)
    return limit_flags(model_limit_flag(command))


def _tenant_spec(spec: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    new = dict(spec)
    for name in ("priority", "weight", "policy"):
        if flags.get(name) is not None:
            new[name] = flags[name]
    if flags.get("models"):
        new["models"] = list(flags["models"])
    if limits := given_limits(flags):
        new["limits"] = {**(spec.get("limits") or {}), **limits}
    if flags.get("model_limits"):
        new["model_limits"] = given_model_limits(flags, spec.get("model_limits"))
    return new


@tenants.command("list")
@with_session
def list_tenants(session: Session) -> None:
    """All tenants."""
    found = session.api.get("/tenants")
    session.answer(
        {"tenants": found},
        lambda: table(
            session.console,
            ("NAME", "PRIORITY", "WEIGHT", "LIMITS", "POLICY"),
            [
                (
                    one["name"],
                    *(one["spec"].get(field) for field in ("priority", "weight")),
                    _set(one),
                    one["spec"]["policy"],
                )
                for one in found
            ],
            empty="There is no tenant yet; 'penstock tenants create NAME' makes one.",
        ),
    )


def _set(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one["spec"].get("limits", {}).items() if value is not None}


@tenants.command("create")
@click.argument("name")
@_tenant_flags
@with_session
def create_tenant(session: Session, name: str, **flags: Any) -> None:
    """Create the tenant NAME."""
    put(session, "Tenant", "tenants", name, _tenant_spec({}, flags), update=False)


@tenants.command("update")
@click.argument("name")
@_tenant_flags
@with_session
def update_tenant(session: Session, name: str, **flags: Any) -> None:
    """Change what is given of the tenant NAME; the rest stays."""
    put(session, "Tenant", "tenants", name, _tenant_spec(old_spec(session, "tenants", name), flags), update=True)


@tenants.command("revoke")
@click.argument("name")
@with_session
def revoke_tenant(session: Session, name: str) -> None:
    """Remove the tenant NAME; its keys have to be revoked before."""
    remove(session, "Tenant", "tenants", name)
