"""`penstock keys`: keys of the gateway and of the control API."""

import time
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.resource import given_limits, given_model_limits, limit_flags, model_limit_flag
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, table, when
from penstock.core.errors import BadRequest, NotFound


@click.group()
def keys() -> None:
    """Keys of the gateway and of this API: whose they are, what they may."""


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    expires = key["expires_at"]
    return "expired" if expires is not None and expires <= time.time() else "valid"


@keys.command("list")
@click.option("--tenant", help="Only this tenant's.")
@with_session
def list_keys(session: Session, tenant: str | None) -> None:
    """All keys, revoked ones too; never their text."""
    found = session.api.get("/keys", tenant=tenant)
    session.answer(
        {"keys": found},
        lambda: table(
            session.console,
            ("ID", "NAME", "TENANT", "PRINCIPAL", "ROLES", "STATE", "CREATED", "EXPIRES"),
            [
                (
                    k["id"],
                    k["name"],
                    k["tenant"],
                    k["principal"],
                    k["roles"],
                    _state(k),
                    when(k["created_at"]),
                    when(k["expires_at"]),
                )
                for k in found
            ],
            empty="There is no key.",
        ),
    )


def _expiry(days: float | None) -> float | None:
    return None if days is None else time.time() + days * 86400


@keys.command("create")
@click.option("--tenant", help="Tenant whose requests it makes; without one it is for the control API alone.")
@click.option("--name", help="What people call it [default: the tenant's name and a time].")
@click.option("--principal", help="Named principal whose roles it carries.")
@click.option("--role", "roles", multiple=True, help="Role of its own; again for more.")
@click.option("--model", "models", multiple=True, help="Route it may call; again for more [default: all].")
@click.option("--expires-in-days", type=click.FloatRange(0, min_open=True), help="Days until it ends [default: never].")
@limit_flags
@model_limit_flag
@with_session
def create_key(
    session: Session,
    tenant: str | None,
    name: str | None,
    principal: str | None,
    roles: tuple[str, ...],
    models: tuple[str, ...],
    expires_in_days: float | None,
    **flags: Any,
) -> None:
    """Create a key. Its text is told once and kept nowhere."""
    body: dict[str, Any] = {
        "name": name or f"{tenant or principal or 'key'}-{time.strftime('%Y%m%d-%H%M%S')}",
        "tenant": tenant,
        "principal": principal,
        "roles": list(roles),
        "models": list(models) or None,
        "limits": given_limits(flags),
        "model_limits": given_model_limits(flags),
        "expires_at": _expiry(expires_in_days),
    }
    told = session.api.send("POST", "/keys", body)

    def people() -> None:
        pairs(session.console, [("id", told["id"]), ("name", told["name"]), ("tenant", told["tenant"])])
        session.console.print("The key, told this once:")
        click.echo(told["key"])

    session.answer(told, people)


def _find_key(session: Session, text: str) -> dict[str, Any]:
    """The valid key with this id or name."""
    found = session.api.get("/keys")
    valid = [key for key in found if text in (key["id"], key["name"]) and key["revoked_at"] is None]
    if len(valid) > 1:
        raise BadRequest(f"{len(valid)} keys are called {text!r}; name one by its id.", param="KEY")
    if not valid:
        raise NotFound(f"There is no valid key with the id or name {text!r}.")
    key: dict[str, Any] = valid[0]
    return key


@keys.command("update")
@click.argument("key_id", metavar="ID_OR_NAME")
@click.option("--role", "roles", multiple=True, help="Roles from now on; again for more.")
@click.option("--model", "models", multiple=True, help="Routes it may call from now on; again for more.")
@click.option("--expires-in-days", type=click.FloatRange(0, min_open=True), help="Days from now until it ends.")
@limit_flags
@model_limit_flag
@with_session
def update_key(
    session: Session,
    key_id: str,
    roles: tuple[str, ...],
    models: tuple[str, ...],
    expires_in_days: float | None,
    **flags: Any,
) -> None:
    """Change what is given of a key; the rest stays, its text too."""
    key = _find_key(session, key_id)
    kept = ("tenant", "principal", "roles", "models", "limits", "model_limits", "expires_at")
    spec = {name: key[name] for name in kept}
    spec["limits"] = {**spec["limits"], **given_limits(flags)}
    spec["model_limits"] = given_model_limits(flags, spec["model_limits"])
    if roles:
        spec["roles"] = list(roles)
    if models:
        spec["models"] = list(models)
    if expires_in_days is not None:
        spec["expires_at"] = _expiry(expires_in_days)
    told = session.api.send("PUT", at("keys", key["id"]), spec)
    session.answer(told, lambda: click.echo(f"Key {told['id']} ({told['name']}) is changed."))


@keys.command("revoke")
@click.argument("key_id", metavar="ID_OR_NAME")
@with_session
def revoke_key(session: Session, key_id: str) -> None:
    """Revoke a key: gateways refuse it within a second."""
    told = session.api.send("POST", f"{at('keys', _find_key(session, key_id)['id'])}/revoke")
    session.answer(told, lambda: click.echo(f"Key {told['id']} ({told['name']}) is revoked."))


@keys.command("adopt")
@click.argument("key_id", metavar="ID_OR_NAME")
@click.option("--principal", required=True, help="Whose it is.")
@with_session
def adopt_key(session: Session, key_id: str, principal: str) -> None:
    """Say whose a key is that belonged to nobody: it has their roles from now on, and what was pushed with it was pushed by them."""
    found = session.api.get("/keys")
    identity = next((key["id"] for key in found if key["id"] == key_id), None) or _find_key(session, key_id)["id"]
    told = session.api.send("POST", f"{at('keys', identity)}/adopt", {"principal": principal})
    session.answer(told, lambda: click.echo(f"Key {told['id']} ({told['name']}) is {told['principal']}'s."))
