"""`penstock signers create|list|revoke`: who vouches for versions by signature."""

import click

from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when


@click.group()
def signers() -> None:
    """Signers: Ed25519 keys that control holds, and keys of others that it trusts."""


@signers.command("create")
@click.argument("name")
@click.option(
    "--public", metavar="HEX", help="Trust this public key; its private half is elsewhere [default: a new pair]."
)
@with_session
def create(session: Session, name: str, public: str | None) -> None:
    """A new signer. The private half of its key never leaves control."""
    told = session.api.send("POST", "/signers", {"name": name, "public": public})
    session.answer(told, lambda: click.echo(f"{name} signs with the key {told['public']}."))


@signers.command("list")
@with_session
def list_signers(session: Session) -> None:
    """All signers, those that are revoked too."""
    found = session.api.get("/signers")
    session.answer(
        {"signers": found},
        lambda: table(
            session.console,
            ("SIGNER", "KEY", "SIGNS HERE", "SINCE", "BY", "REVOKED", "WHY"),
            [
                (
                    one["name"],
                    one["public"],
                    one["signs_here"],
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
