"""`penstock signers create|change|list|revoke`: who vouches for versions by signature."""

from typing import Any

import click

from penstock.access.principals import ROLES
from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when


@click.group()
def signers() -> None:
    """Signers: Ed25519 keys that control holds, and keys of others that it trusts."""


_owner = click.option("--owner", metavar="PRINCIPAL", help="Who signs with it.")
_roles = click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(tuple(ROLES)),
    help="Whose holders sign with it, too; again for more.",
)


def _allowed(told: dict[str, Any]) -> str:
    return (
        ", ".join([*([told["owner"]] if told["owner"] else []), *(f"every {role}" for role in told["roles"])])
        or "nobody"
    )


@signers.command("create")
@click.argument("name")
@click.option(
    "--public", metavar="HEX", help="Trust this public key; its private half is elsewhere [default: a new pair]."
)
@_owner
@_roles
@with_session
def create(session: Session, name: str, public: str | None, owner: str | None, roles: tuple[str, ...]) -> None:
    """A new signer, for you alone unless you say otherwise. The private half of its key never leaves control."""
    body = {"name": name, "public": public, "owner": owner, "roles": list(roles)}
    told = session.api.send("POST", "/signers", body)
    session.answer(told, lambda: click.echo(f"{name} signs with the key {told['public']}, for {_allowed(told)}."))


@signers.command("change")
@click.argument("name")
@_owner
@_roles
@with_session
def change(session: Session, name: str, owner: str | None, roles: tuple[str, ...]) -> None:
    """Say anew who may sign with a signer; what it has signed stands."""
    told = session.api.send("POST", f"{at('signers', name)}/change", {"owner": owner, "roles": list(roles)})
    session.answer(told, lambda: click.echo(f"{name} signs for {_allowed(told)}."))


@signers.command("list")
@with_session
def list_signers(session: Session) -> None:
    """All signers, those that are revoked too."""
    found = session.api.get("/signers")
    session.answer(
        {"signers": found},
        lambda: table(
            session.console,
            ("SIGNER", "KEY", "SIGNS HERE", "FOR", "SINCE", "BY", "REVOKED", "WHY"),
            [
                (
                    one["name"],
                    one["public"],
                    one["signs_here"],
                    _allowed(one),
                    when(one["created_at"]),
                    one["created_by"],
                    when(one["revoked_at"]),
                    one["revoked_reason"] or "",
                )
                for one in found
            ],
            empty="There is no signer yet; 'penstock signers create NAME' makes one.",
        ),
    )


@signers.command("revoke")
@click.argument("name")
@click.option("--reason", required=True, help="Why, for whoever meets it.")
@with_session
def revoke(session: Session, name: str, reason: str) -> None:
    """Trust a signer no more: nothing that it ever signed counts as signed by it."""
    told = session.api.send("POST", f"{at('signers', name)}/revoke", {"reason": reason})
    session.answer(told, lambda: click.echo(f"{name} is trusted no more."))
