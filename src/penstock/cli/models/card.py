"""`penstock models card`: shown, checked, begun, edited."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument, read_text
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when
from penstock.core.errors import BadRequest
from penstock.core.references import parse_reference


@click.command("card")
@click.argument("reference", metavar="REF")
@click.option(
    "--edit", "file", type=file_argument, metavar="FILE", help="Make FILE (- is stdin) the card's next revision."
)
@click.option("--reason", default="", help="With --edit: why, for the record.")
@click.option(
    "--check",
    is_flag=True,
    help="What it does not say, and the command that supplies it; exit status 1 if any card would say it.",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["any", "production"]),
    default="any",
    show_default=True,
    help="With --check: what is asked of it.",
)
@click.option(
    "--template", is_flag=True, help="A card to begin from, filled with metadata, evaluations, data sets and lineage."
)
@click.option("--revisions", is_flag=True, help="Who edited it, when and why.")
@click.option("--revision", type=click.IntRange(1), metavar="N", help="As it was at revision N.")
@with_session
def card(
    session: Session,
    reference: str,
    file: str | None,
    reason: str,
    check: bool,
    purpose: str,
    template: bool,
    revisions: bool,
    revision: int | None,
) -> int:
    """The model card of a version, as Markdown with the front matter of the Hugging Face hub."""
    if sum((file is not None, check, template, revisions, revision is not None)) > 1:
        raise BadRequest("Give one of --edit, --check, --template, --revisions and --revision.", param="--edit")
    wanted = parse_reference(reference)
    where = at("models", wanted.name, "versions", wanted.label or wanted.digest or f"@{wanted.alias}", "card")
    if file is not None:
        _edit(session, where, file, reason)
    elif check:
        return _check(session, where, purpose)
    elif revisions:
        _revisions(session, where)
    elif template:
        text = session.api.text(f"{where}/template")
        session.answer({"reference": reference, "template": text}, lambda: click.echo(text, nl=False))
    else:
        _show(session, reference, where, revision)
    return 0


def _show(session: Session, reference: str, where: str, revision: int | None) -> None:
    found = session.api.get("/resolve", ref=reference)
    text = found["card"] if revision is None else session.api.text(where, revision=revision)
    document = {
        "model": found["model"],
        "label": found["label"],
        "digest": found["digest"],
        "revision": revision or found["card_revision"],
        "card": text,
    }
    begin = f"{reference} has no card; 'penstock models card {reference} --template' begins one."
    session.answer(document, lambda: click.echo(text or begin))


def _edit(session: Session, where: str, file: str, reason: str) -> None:
    found = session.api.send("PUT", where, {"text": read_text(file), "reason": reason})

    def people() -> None:
        click.echo(f"The card of {found['model']}:{found['label']} is at revision {found['revision']}.")
        _lacking(session, found["lacking"])

    session.answer(found, people)


def _check(session: Session, where: str, purpose: str) -> int:
    found = session.api.get(f"{where}/check")
    complete = found["complete_for_production" if purpose == "production" else "complete"]

    def people() -> None:
        click.echo(f"The card of {found['model']}:{found['label']} is {'complete' if complete else 'not complete'}.")
        _lacking(session, found["lacking"])

    session.answer(found, people)
    return 0 if complete else 1


def _lacking(session: Session, lacking: list[dict[str, Any]]) -> None:
    if lacking:
        table(
            session.console,
            ("IT LACKS", "ASKED FOR", "WHAT SUPPLIES IT"),
            [
                (one["what"], "by production" if one["wanted_for"] == "production" else "of any card", one["command"])
                for one in lacking
            ],
            empty="",
        )


def _revisions(session: Session, where: str) -> None:
    found = session.api.get(f"{where}/revisions")
    session.answer(
        {"revisions": found},
        lambda: table(
            session.console,
            ("REVISION", "AT", "BY", "CHARACTERS", "WHY"),
            [(r["number"], when(r["at"]), r["principal"], r["characters"], r["reason"]) for r in found],
            empty="It has no card.",
        ),
    )
