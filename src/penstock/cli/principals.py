"""`penstock principals`: people and programs, whose keys carry their roles and whose word counts in approvals."""

import click

from penstock.access.principals import ROLES
from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when


@click.group()
def principals() -> None:
    """People and programs: their keys carry their roles, and an approval is their word."""


@principals.command("list")
@with_session
def list_principals(session: Session) -> None:
    """All principals, those that are disabled too."""
    found = session.api.get("/principals")
    session.answer(
        {"principals": found},
        lambda: table(
            session.console,
            ("NAME", "ID", "ROLES", "SINCE", "DISABLED"),
            [(p["name"], p["id"], p["roles"], when(p["created_at"]), when(p["disabled_at"])) for p in found],
            empty="There is no principal; 'penstock principals create NAME --role ROLE' makes one.",
        ),
    )


@principals.command("create")
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(tuple(ROLES)), help="Its role; again for more."
)
@with_session
def create(session: Session, name: str, roles: tuple[str, ...]) -> None:
    """Name a person or a program; 'penstock keys create --principal NAME' gives it a key."""
    told = session.api.send("POST", "/principals", {"name": name, "roles": list(roles)})
    session.answer(told, lambda: click.echo(f"{told['name']} is a principal: {', '.join(told['roles'])}."))


@principals.command("rename")
@click.argument("name")
@click.argument("to")
@with_session
def rename(session: Session, name: str, to: str) -> None:
    """Call a principal otherwise; its keys, pushes and approvals stay its own."""
    told = session.api.send("POST", f"{at('principals', name)}/rename", {"to": to})
    session.answer(told, lambda: click.echo(f"{name} is called {told['name']}."))


@principals.command("disable")
@click.argument("name")
@with_session
def disable(session: Session, name: str) -> None:
    """Take no key of a principal any more, and count none of its approvals."""
    told = session.api.send("POST", f"{at('principals', name)}/disable")
    session.answer(told, lambda: click.echo(f"{told['name']} is disabled."))
