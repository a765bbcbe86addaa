"""`penstock readiness`: the ML Test Score of a version and its deployment."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import table
from penstock.core.errors import BadRequest
from penstock.core.references import parse_reference


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--in", "environment", default="production", show_default=True, metavar="ENV", help="Where it runs, or is to run."
)
@click.option("--missing", is_flag=True, help="Only the tests that give less than a point.")
@click.option("--answer", "test", metavar="TEST", help="Say that TEST was done by hand; with --text and --signer.")
@click.option("--text", help="With --answer: what was done, and what came of it.")
@click.option("--signer", metavar="NAME", help="With --answer: who signs it (penstock signers list).")
@with_session
def readiness(
    session: Session,
    reference: str,
    environment: str,
    missing: bool,
    test: str | None,
    text: str | None,
    signer: str | None,
) -> None:
    """How ready a version is, by the ML Test Score (Breck et al. 2017): 28 tests in four groups, each with its evidence or what would supply it.

    Half a point for what was done by hand and signed, a whole one for what the system does again and again; the score is that of the weakest group.
    """
    wanted = parse_reference(reference)
    where = at("models", wanted.name, "versions", wanted.label or wanted.digest or f"@{wanted.alias}", "readiness")
    if test is not None:
        if not text or not signer:
            raise BadRequest("--answer needs --text and --signer.", param="--answer")
        session.api.send("POST", where, {"test": test, "text": text, "signer": signer})
    found = session.api.get(where, environment=environment)
    session.answer(found, lambda: _show(session, found, missing=missing))


def _show(session: Session, found: dict[str, Any], *, missing: bool) -> None:
    console = session.console
    console.print(
        f"[bold]{found['model']}:{found['label']}[/] in {found['environment']}: {found['score']:g} of 7. {found['meaning']}"
    )
    console.print(", ".join(f"{group} {points:g}" for group, points in found["groups"].items()))
    console.print()
    table(
        console,
        ("TEST", "POINTS", "WHAT", "EVIDENCE", "WHAT WOULD SUPPLY IT"),
        [
            (one["id"], f"{one['points']:g}", one["name"], one["words"], one["command"])
            for one in found["lines"]
            if not missing or one["points"] < 1
        ],
        empty="Nothing is missing.",
    )
