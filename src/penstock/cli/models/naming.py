"""`penstock models next|alias|archive|restore|delete`: labels to come, names that move, versions put away."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when
from penstock.core.errors import BadRequest
from penstock.core.references import Reference, check_name, parse_reference


@click.command("next")
@click.argument("name", metavar="NAME")
@click.option("--scheme", type=click.Choice(["semantic", "date", "run"]), help="Left out: that of the last version.")
@click.option(
    "--bump",
    type=click.Choice(["major", "minor", "patch"]),
    default="minor",
    show_default=True,
    help="Of the semantic scheme.",
)
@click.option("--pre", metavar="WORD", help="A pre-release of this name, such as rc.")
@click.option(
    "--experiment", type=click.IntRange(0), metavar="N", help="Of the run scheme: the next run of experiment N."
)
@with_session
def following(session: Session, name: str, **wish: Any) -> None:
    """The label that would come next; `penstock models diff` tells which bump is called for."""
    found = session.api.get(at("models", name, "next"), **wish)
    session.answer({"model": name, **found}, lambda: click.echo(found["next"]))


@click.group()
def alias() -> None:
    """Names of versions that move, such as support-bot@champion."""


@alias.command("list")
@click.argument("name", metavar="NAME")
@with_session
def list_aliases(session: Session, name: str) -> None:
    """The aliases of a model."""
    found = session.api.get(at("models", name, "aliases"))
    session.answer(
        {"aliases": found},
        lambda: table(
            session.console,
            ("ALIAS", "VERSION", "DIGEST", "GENERATION", "MOVED", "BY"),
            [
                (
                    f"{one['model']}@{one['alias']}",
                    one["label"],
                    one["digest"],
                    one["generation"],
                    when(one["moved_at"]),
                    one["moved_by"],
                )
                for one in found
            ],
            empty=f"{name} has no alias; 'penstock models alias set {name}@ALIAS REF' makes one.",
        ),
    )


@alias.command("set")
@click.argument("name", metavar="NAME@ALIAS")
@click.argument("reference", metavar="REF")
@click.option("--reason", default="", help="Why, for the history.")
@click.option("--generation", type=click.IntRange(0), help="As you saw it: refused if it has moved; 0: there was none.")
@click.option(
    "--override",
    default="",
    metavar="WHY",
    help="Though a pool follows it and gates are not passed; administrators may.",
)
@with_session
def set_alias(session: Session, name: str, reference: str, reason: str, generation: int | None, override: str) -> None:
    """Let NAME@ALIAS mean the version REF: NAME:LABEL, or a label, digest, @ALIAS or @ENVIRONMENT of the same model."""
    wanted = _alias(name)
    body = {"label": _within(wanted.name, reference), "reason": reason, "generation": generation}
    body |= {"override": override} if override else {}
    found = session.api.send("PUT", at("models", wanted.name, "aliases", str(wanted.alias)), body)
    session.answer(found, lambda: click.echo(f"{name} is {found['model']}:{found['label']}, {found['digest']}."))


@alias.command("history")
@click.argument("name", metavar="NAME@ALIAS")
@with_session
def alias_history(session: Session, name: str) -> None:
    """Every move of an alias, newest first; of one that was removed, too."""
    wanted = _alias(name)
    found = session.api.get(at("models", wanted.name, "aliases", str(wanted.alias), "history"))
    session.answer(
        {"moves": found},
        lambda: table(
            session.console,
            ("NUMBER", "VERSION", "BEFORE", "DIGEST", "AT", "BY", "WHY"),
            [
                (
                    one["number"],
                    one["label"] or "removed",
                    one["previous"],
                    one["digest"],
                    when(one["at"]),
                    one["principal"],
                    one["reason"],
                )
                for one in found
            ],
            empty="It has never moved.",
        ),
    )


@alias.command("remove")
@click.argument("name", metavar="NAME@ALIAS")
@click.option("--generation", type=click.IntRange(0), help="As you saw it: refused if it has moved.")
@with_session
def remove_alias(session: Session, name: str, generation: int | None) -> None:
    """Take an alias away; its history stays."""
    wanted = _alias(name)
    session.api.send("DELETE", at("models", wanted.name, "aliases", str(wanted.alias)), generation=generation)
    session.answer({"alias": name, "removed": True}, lambda: click.echo(f"{name} is removed."))


_reason = click.option("--reason", default="", help="Why, for the record.")


@click.command("archive")
@click.argument("reference", metavar="REF")
@_reason
@with_session
def archive(session: Session, reference: str, reason: str) -> None:
    """Keep a version from being deployed; `restore` takes it back."""
    _move(session, reference, "archived", reason)


@click.command("restore")
@click.argument("reference", metavar="REF")
@_reason
@with_session
def restore(session: Session, reference: str, reason: str) -> None:
    """Take back a version that was archived."""
    _move(session, reference, "committed", reason)


@click.command("delete")
@click.argument("reference", metavar="REF")
@_reason
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, reference: str, reason: str, yes: bool) -> None:
    """Give a version's bytes up for good. Its label is never used again; digest, metadata and card stay.

    Refused while a deployment runs it or could be rolled back to it, or an alias means it.
    """
    if not yes:
        click.confirm(f"The bytes of {reference} go with the next sweep and do not come back. Delete it?", abort=True)
    _move(session, reference, "deleted", reason)


def _move(session: Session, reference: str, state: str, reason: str) -> None:
    wanted = parse_reference(reference)
    part = wanted.label or wanted.digest or f"@{wanted.alias}"
    found = session.api.send(
        "POST", at("models", wanted.name, "versions", part, "state"), {"state": state, "reason": reason}
    )
    session.answer(found, lambda: click.echo(f"{found['model']}:{found['label']} is {found['state']}."))


def _alias(text: str) -> Reference:
    found = parse_reference(text)
    if found.alias is None:
        raise BadRequest(f"{text!r} is no alias; write NAME@ALIAS.", param="NAME@ALIAS")
    return found


def _within(model: str, text: str) -> str:
    """The part of a reference that the API's path has: a label, a digest or @ALIAS of `model`."""
    if text.startswith(("@", "sha256:")):
        return text
    try:
        found = parse_reference(text)
    except BadRequest:
        return text  # a label alone
    if found.name != check_name(model):
        raise BadRequest(f"{text} is of another model than {model}.", param="REF")
    return found.label or found.digest or f"@{found.alias}"
