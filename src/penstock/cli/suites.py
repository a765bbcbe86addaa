"""`penstock suites add|list|show`: questions that versions are evaluated by."""

from pathlib import Path

import click

from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, table, when
from penstock.core.errors import BadRequest


@click.group()
def suites() -> None:
    """Suites: questions with what a right answer is, one JSON document a line (docs/gates.md)."""


@suites.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("name", required=False)
@click.option("--description", default="", help="What it asks, for people.")
@with_session
def add(session: Session, file: Path, name: str | None, description: str) -> None:
    """Register FILE as the suite NAME [default: the file's name], by its digest."""
    try:
        lines = file.read_bytes().decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{file} is not UTF-8.", param="FILE") from None
    body = {"name": name or file.stem, "lines": lines, "description": description}
    told = session.api.send("POST", "/suites", body)
    session.answer(
        told, lambda: click.echo(f"{told['name']} is registered as {told['digest']}: {told['items']} items.")
    )


@suites.command("list")
@with_session
def list_suites(session: Session) -> None:
    """All suites, the newest of each name first."""
    found = session.api.get("/suites")
    session.answer(
        {"suites": found},
        lambda: table(
            session.console,
            ("SUITE", "NUMBER", "ITEMS", "DIGEST", "SINCE", "BY", "DESCRIPTION"),
            [
                (
                    s["name"],
                    s["number"],
                    s["items"],
                    s["digest"],
                    when(s["created_at"]),
                    s["created_by"],
                    s["description"],
                )
                for s in found
            ],
            empty="There is no suite yet; 'penstock suites add FILE NAME' registers one.",
        ),
    )


@suites.command("show")
@click.argument("reference", metavar="NAME[@sha256:...]")
@click.option("--lines", is_flag=True, help="Print its items as they were registered.")
@with_session
def show(session: Session, reference: str, lines: bool) -> None:
    """One suite: what it measures, and its slices."""
    told = session.api.get(at("suites", reference))

    def people() -> None:
        if lines:
            click.echo(told["lines"], nl=False)
            return
        pairs(
            session.console,
            [
                ("suite", f"{told['name']} (number {told['number']})"),
                ("digest", told["digest"]),
                ("items", told["items"]),
                ("measures", told["families"]),
                *((f"slice {name}", values) for name, values in told["slices"].items()),
                ("description", told["description"]),
            ],
        )

    session.answer(told, people)
