"""`penstock blocks list|add|clear`: versions that may not be deployed in an environment."""

from typing import Any

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when
from penstock.core.references import parse_reference

_environment = click.option(
    "--in", "environment", required=True, metavar="ENV", help="Environment that it is kept out of."
)


@click.group()
def blocks() -> None:
    """Versions that were rolled back for cause: none is deployed again until it is cleared."""


@blocks.command("list")
@click.option("--in", "environment", metavar="ENV", help="Only this environment.")
@click.option("--all", "every", is_flag=True, help="Cleared ones too.")
@with_session
def list_blocks(session: Session, environment: str | None, every: bool) -> None:
    """What is blocked, and why."""
    found = session.api.get("/blocks", environment=environment, all="true" if every else None)
    _answer(session, found)


@blocks.command("add")
@click.argument("reference", metavar="NAME:LABEL")
@_environment
@click.option("--reason", required=True, help="Why, for whoever meets the block.")
@with_session
def add(session: Session, reference: str, environment: str, reason: str) -> None:
    """Keep a version out of an environment; a canary of it is taken back; where it is live, it goes on."""
    _answer(session, session.api.send("POST", "/blocks", _body(reference, environment, reason)))


@blocks.command("clear")
@click.argument("reference", metavar="NAME:LABEL")
@_environment
@click.option("--reason", required=True, help="Why its cause is gone, for the record.")
@with_session
def clear(session: Session, reference: str, environment: str, reason: str) -> None:
    """Let a version be deployed again."""
    left = session.api.send("POST", "/blocks/clear", _body(reference, environment, reason))
    session.answer({"blocks": left}, lambda: click.echo(f"{reference} may be deployed in {environment} again."))


def _body(reference: str, environment: str, reason: str) -> dict[str, Any]:
    wanted = parse_reference(reference)
    label = wanted.label or wanted.digest or f"@{wanted.alias}"
    return {"model": wanted.name, "label": label, "environment": environment, "reason": reason}


def _answer(session: Session, found: list[dict[str, Any]]) -> None:
    session.answer(
        {"blocks": found},
        lambda: table(
            session.console,
            ("VERSION", "ENV", "SINCE", "BY", "WHY", "CLEARED"),
            [
                (
                    f"{one['model']}:{one['label']}",
                    one["environment"],
                    when(one["at"]),
                    one["principal"],
                    one["reason"],
                    when(one["cleared_at"]),
                )
                for one in found
            ],
            empty="No version is blocked.",
        ),
    )
