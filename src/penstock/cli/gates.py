"""`penstock gates show|run|list|replay|cancel` and `penstock approve`: what an environment asks of a version, and whether it is given."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.evaluations import show_evaluation, watch
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when
from penstock.core.references import parse_reference

_environment = click.option(
    "--for", "environment", default="production", show_default=True, metavar="ENV", help="Environment that asks."
)
_precision = click.option(
    "--precision",
    type=click.Choice(["int8", "int4", "fp16", "fp32"]),
    help="Build that is meant [default: what runs there now, else int8, if there is one].",
)
_MARKS = {"passed": "passed", "failed": "FAILED", "missing": "missing"}


@click.group()
def gates() -> None:
    """What an environment asks of a version before it runs there (docs/gates.md)."""


@gates.command("show")
@click.argument("reference", metavar="REF")
@_environment
@_precision
@with_session
def show(session: Session, reference: str, environment: str, precision: str | None) -> None:
    """Each gate: passed, failed or missing, with its figures and the command that would supply it."""
    told = session.api.get("/gates", environment=environment, precision=precision, **_named(reference))
    session.answer(told, lambda: _show(session, told))


@gates.command("run")
@click.argument("reference", metavar="REF")
@_environment
@_precision
@click.option("--wait/--no-wait", default=True, help="Watch the evaluations until they are done [default: yes].")
@with_session
def run(session: Session, reference: str, environment: str, precision: str | None, wait: bool) -> None:
    """Have all evaluated that the gates lack: scan, smoke test, suites, of the version and of what is live."""
    body = {**_named(reference), "environment": environment, "precision": precision}
    told = session.api.send("POST", "/gates/run", body)
    if wait and told["asked"]:
        watch(session, told["asked"])
        told = {
            **session.api.get("/gates", environment=environment, precision=precision, **_named(reference)),
            "asked": told["asked"],
        }
    session.answer(told, lambda: _show(session, told))


@gates.command("list")
@click.option("--of", "reference", metavar="REF", help="Only of this version.")
@with_session
def list_evaluations(session: Session, reference: str | None) -> None:
    """Evaluations, newest first."""
    found = session.api.get("/evaluations", **(_named(reference) if reference is not None else {}))
    session.answer(
        {"evaluations": found},
        lambda: table(
            session.console,
            ("EVALUATION", "VERSION", "WHAT", "STATE", "ITEMS", "SINCE", "BY", "TELLS"),
            [
                (
                    one["id"],
                    f"{one['model']}:{one['label']}",
                    one["suite"] or one["kind"],
                    one["state"],
                    f"{one['done']}/{one['total']}",
                    when(one["created_at"]),
                    one["requested_by"],
                    one["detail"],
                )
                for one in found
            ],
            empty="Nothing was evaluated yet.",
        ),
    )


@gates.command("replay")
@click.argument("evaluation", metavar="EVALUATION")
@with_session
def replay(session: Session, evaluation: str) -> None:
    """Measure the same again, and tell which items were answered otherwise."""
    told = session.api.send("POST", f"{at('evaluations', evaluation)}/replay")
    [told] = watch(session, [told["id"]])
    show_evaluation(session, told)


@gates.command("cancel")
@click.argument("evaluation", metavar="EVALUATION")
@with_session
def cancel(session: Session, evaluation: str) -> None:
    """End an evaluation that waits or runs."""
    told = session.api.send("POST", f"{at('evaluations', evaluation)}/cancel")
    session.answer(told, lambda: click.echo(f"{evaluation} is cancelled."))


@click.command()
@click.argument("reference", metavar="REF")
@_environment
@_precision
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--withdraw", is_flag=True, help="Take one's approval back.")
@with_session
def approve(
    session: Session, reference: str, environment: str, precision: str | None, reason: str, withdraw: bool
) -> None:
    """Give one's word for a version in an environment, with the results that its gates have now.

    It is bound to the version's digest, the policy and these results, and expires. Whoever pushed the version is not counted, where the policy says so.
    """
    body = {**_named(reference), "environment": environment, "precision": precision, "reason": reason}
    if withdraw:
        left = session.api.send("POST", "/approvals/withdraw", body)
        session.answer(
            {"approvals": left}, lambda: click.echo(f"{reference} has your approval for {environment} no more.")
        )
        return
    told = session.api.send("POST", "/approvals", body)
    session.answer(
        told,
        lambda: click.echo(f"{told['model']}:{told['label']} is approved for {environment} by {told['principal']}."),
    )


def _named(reference: str) -> dict[str, str]:
    wanted = parse_reference(reference)
    return {"model": wanted.name, "label": wanted.label or wanted.digest or f"@{wanted.alias}"}


def _show(session: Session, told: dict[str, Any]) -> None:
    name = f"{told['model']}:{told['label']}"
    if not told["declared"]:
        click.echo(f"{told['environment']} asks nothing of {name}: its policy declares no gates.")
        return
    table(
        session.console,
        ("GATE", "STATE", "WHY", "WHAT WOULD SUPPLY IT"),
        [(one["gate"], _MARKS[one["state"]], one["words"], one["command"] or "-") for one in told["outcomes"]],
        empty=f"{told['environment']} asks nothing of {told['model']}.",
    )
    click.echo(f"{name} {'may be' if told['passed'] else 'is not to be'} promoted to {told['environment']}.")
