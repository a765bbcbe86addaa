"""`penstock evaluators`: how answers are scored after the fact, and how much has been; `penstock references`: questions with known answers."""

import json
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument, read_spec, read_text
from penstock.cli.resource import file_flag, old_spec, put, remove
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, share, table
from penstock.core.errors import BadRequest


@click.group()
def evaluators() -> None:
    """How answers are scored after the fact, and how much has been."""


@evaluators.command("list")
@with_session
def list_evaluators(session: Session) -> None:
    """All evaluators, what each tells, how far it is behind and what it has cost."""
    found = [session.api.get(at("evaluators", one["name"], "coverage")) for one in session.api.get("/evaluators")]
    session.answer(
        {"evaluators": found},
        lambda: table(
            session.console,
            ("NAME", "METHOD", "TELLS", "DRAWN", "TOLD", "BEHIND", "CALLS", "COST"),
            [
                (
                    one["evaluator"],
                    one["method"],
                    one["event"],
                    sum(row["drawn"] for row in one["coverage"]),
                    sum(row["told"] for row in one["coverage"]),
                    f"{one['behind_s']:.0f} s",
                    one["calls"],
                    f"${one['cost_usd']:.4f}",
                )
                for one in found
            ],
            empty="There is no evaluator: answers are not scored.",
        ),
    )


@evaluators.command("show")
@click.argument("name")
@with_session
def show_evaluator(session: Session, name: str) -> None:
    """The evaluator NAME: its spec, and what became of the answers that it drew, by experiment and arm."""
    declared = session.api.get(at("evaluators", name))
    told = session.api.get(at("evaluators", name, "coverage"))

    def people() -> None:
        pairs(
            session.console,
            (
                ("Method", told["method"]),
                ("Tells", told["event"]),
                ("Share", share(told["share"])),
                ("At work", told["running"]),
                ("Waits", told["held"]),
                ("Behind", f"{told['behind_s']:.0f} s"),
                ("Calls", f"{told['calls']} ({told['errors']} failed, {told['refused']} refused)"),
                ("Tokens", f"{told['prompt_tokens']} read, {told['completion_tokens']} written"),
                ("Cost", f"${told['cost_usd']:.4f}"),
            ),
        )
        table(
            session.console,
            ("EXPERIMENT", "ARM", "DRAWN", "TOLD", "TIES", "DISAGREES", "RESULTS"),
            [
                (
                    row["experiment"] or "-",
                    row["arm"] or "-",
                    row["drawn"],
                    row["told"],
                    row["ties"],
                    share(row["disagreement"]),
                    {result: count for result, count in row["results"].items() if count},
                )
                for row in told["coverage"]
            ],
            empty="It has drawn no answer yet.",
        )

    session.answer({"spec": declared["spec"], **told}, people)


@evaluators.command("create")
@click.argument("name")
@file_flag
@with_session
def create_evaluator(session: Session, name: str, path: str | None) -> None:
    """Create the evaluator NAME with the spec in FILE."""
    put(session, "Evaluator", "evaluators", name, _spec(path), update=False)


@evaluators.command("update")
@click.argument("name")
@file_flag
@with_session
def update_evaluator(session: Session, name: str, path: str | None) -> None:
    """Replace what FILE gives of the evaluator NAME; the rest stays."""
    old = old_spec(session, "evaluators", name)
    put(session, "Evaluator", "evaluators", name, {**old, **_spec(path)}, update=True)


@evaluators.command("revoke")
@click.argument("name")
@with_session
def revoke_evaluator(session: Session, name: str) -> None:
    """Remove the evaluator NAME with its counts; what it has told stays."""
    remove(session, "Evaluator", "evaluators", name)


def _spec(path: str | None) -> dict[str, Any]:
    if path is None:
        raise BadRequest("Give the spec with -f FILE.", param="--file")
    return read_spec(path, "Evaluator")


@click.group()
def references() -> None:
    """Questions whose right answers are known: what `accuracy` is measured by."""


@references.command("list")
@with_session
def list_references(session: Session) -> None:
    """All sets of references."""
    found = session.api.get("/references")
    told = [{"name": one["name"], "items": len(one["spec"]["items"]), "origin": one["origin"]} for one in found]
    session.answer(
        {"references": told},
        lambda: table(
            session.console,
            ("NAME", "QUESTIONS", "FROM"),
            [(one["name"], one["items"], one["origin"]) for one in told],
            empty="There are no references.",
        ),
    )


@references.command("push")
@click.argument("path", type=file_argument, metavar="FILE")
@click.argument("name")
@with_session
def push_references(session: Session, path: str, name: str) -> None:
    """Register the questions in FILE as NAME: a JSON object a line, with `question` and `answers`. What was there before is replaced."""
    items = _lines(path)
    body = {"kind": "References", "name": name, "spec": {"items": items}}
    session.api.send("PUT", at("references", name), body)
    session.answer(
        {"name": name, "items": len(items)}, lambda: click.echo(f"{name} holds {len(items)} questions with answers.")
    )


@references.command("show")
@click.argument("name")
@with_session
def show_references(session: Session, name: str) -> None:
    """The questions and answers of NAME."""
    told = session.api.get(at("references", name))
    session.answer(
        told,
        lambda: table(
            session.console,
            ("QUESTION", "MATCH", "ANSWERS"),
            [(one["question"], one["match"], one["answers"]) for one in told["spec"]["items"]],
            empty="It holds no question.",
        ),
    )


@references.command("revoke")
@click.argument("name")
@with_session
def revoke_references(session: Session, name: str) -> None:
    """Remove the references NAME."""
    remove(session, "References", "references", name)


def _lines(path: str) -> list[Any]:
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise BadRequest(f"{path}, line {number}, is no JSON: {error}.", param=path) from None
    return found
