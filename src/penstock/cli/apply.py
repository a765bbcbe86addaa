"""`penstock apply`."""

import json
from typing import Any

import click

from penstock.cli.documents import file_argument, read_text
from penstock.cli.session import Session, with_session

_COLOURS = {"create": "green", "change": "yellow", "keep": "dim", "delete": "red"}


@click.command()
@click.option("-f", "--file", "path", required=True, type=file_argument, help="YAML documents; - is stdin.")
@click.option("--dry-run", is_flag=True, help="Only show the difference.")
@click.option("--prune", is_flag=True, help="Remove what an earlier apply made and these documents no longer have.")
@click.option(
    "--override",
    default="",
    metavar="WHY",
    help="Let pools name versions that do not pass their gates; administrators may.",
)
@with_session
def apply(session: Session, path: str, dry_run: bool, prune: bool, override: str) -> None:
    """Bring what is there to what the documents in FILE say: all of it, or nothing.

    A document has `kind`, `name` and `spec`. Applying the same file twice changes nothing the second time.
    """
    text = read_text(path)
    asked = {
        "dry_run": str(dry_run).lower(),
        "prune": str(prune).lower(),
        **({"override": override} if override else {}),
    }
    told = session.api.raw("POST", "/apply", text.encode(), "application/yaml", **asked)
    session.answer(told, lambda: _show(session, told))


def _show(session: Session, told: dict[str, Any]) -> None:
    from rich.markup import escape

    would = "would " if told["dry_run"] else ""
    for step in told["steps"]:
        colour = _COLOURS.get(step["action"], "")
        session.console.print(f"[{colour}]{would}{step['action']:7}[/] {step['kind']} {step['name']}")
        for where, (before, after) in step.get("changes", {}).items():
            session.console.print(
                f"          {escape(where)}: {escape(json.dumps(before))} -> {escape(json.dumps(after))}"
            )
        if "key" in step.get("told", {}):
            session.console.print(f"          key (told this once): {step['told']['key']}")
    if not told["steps"]:
        session.console.print("Nothing to do: there is no document.")
