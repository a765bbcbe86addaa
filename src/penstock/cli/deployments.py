"""`penstock promote`, `rollback`, `history`: which version an environment runs."""

import time
from typing import Any

import click

from penstock.cli.canary import begin, say_begun
from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when
from penstock.core.errors import BadRequest, Conflict
from penstock.core.references import parse_reference

_WAIT_S = 120.0
_wait = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 600),
    default=_WAIT_S,
    show_default=True,
    help="Seconds to wait until it is live.",
)
_override = click.option(
    "--override", default="", metavar="WHY", help="Let it in though gates are not passed; administrators alone may."
)
_reason = click.option("--reason", default="", help="Why, for the history.")


@click.command()
@click.argument("reference", metavar="NAME:LABEL")
@click.option("--to", "environment", required=True, metavar="ENV", help="dev, staging, production, or one of your own.")
@click.option(
    "--precision",
    type=click.Choice(["int8", "int4", "fp16", "fp32"]),
    help="Build to run [default: as now, else int8].",
)
@click.option("--replicas", type=click.IntRange(1, 64), help="How many [default: as now, else 1].")
@click.option("--canary", is_flag=True, help="Try it out on a share of the traffic first, by ENV's plan.")
@_override
@_reason
@_wait
@with_session
def promote(
    session: Session,
    reference: str,
    environment: str,
    precision: str | None,
    replicas: int | None,
    canary: bool,
    override: str,
    reason: str,
    wait_s: float,
) -> None:
    """Let an environment run a version: it goes live as soon as its replicas are ready, or once its canary has done no harm."""
    if canary:
        more = {"precision": precision, "replicas": replicas, "reason": reason, "override": override}
        told = begin(session, reference, environment, more)
        session.answer(told, lambda: say_begun(told))
        return
    wanted = parse_reference(reference)
    label = wanted.label or wanted.digest or f"@{wanted.alias}"
    body = {
        "model": wanted.name,
        "label": label,
        "environment": environment,
        "precision": precision,
        "replicas": replicas,
        "reason": reason,
        "override": override,
    }
    _settle(session, "/promote", body, wait_s)


@click.command()
@click.argument("name")
@click.option("--in", "environment", required=True, metavar="ENV", help="Environment to roll back.")
@click.option("--to", "to", help="Revision number or label [default: the state before this one].")
@click.option("--block", is_flag=True, help="Keep what is left out of ENV until somebody clears it; needs --reason.")
@_reason
@_wait
@with_session
def rollback(
    session: Session, name: str, environment: str, to: str | None, block: bool, reason: str, wait_s: float
) -> None:
    """Go back to an earlier whole state of the model NAME, as a new revision that copies it."""
    if ":" in name or "@" in name:
        raise BadRequest(
            f"{name!r}: rollback takes a model's name alone; --to chooses where to go back to.", param="NAME"
        )
    body = {"model": name, "environment": environment, "to": to, "reason": reason, "block": block}
    _settle(session, "/rollback", body, wait_s)


def _settle(session: Session, path: str, body: dict[str, Any], wait_s: float) -> None:
    begun = time.monotonic()
    if session.as_json:
        revision = session.api.send("POST", path, body, wait=wait_s)
    else:
        with session.console.status("waiting for its replicas ..."):
            revision = session.api.send("POST", path, body, wait=wait_s)
    name = f"{revision['model']}:{revision['label']}"
    where = f"{revision['environment']} (revision {revision['number']})"
    if revision["state"] == "failed":
        raise Conflict(f"{name} did not come up in {where}: {revision['detail']}. What ran before still runs.")
    seconds = time.monotonic() - begun

    def people() -> None:
        if revision["state"] == "live":
            click.echo(f"{name} is live in {where} after {seconds:.1f} s.")
        else:
            click.echo(
                f"{name} is {revision['state']} in {where}; 'penstock history {revision['model']}' tells how it goes."
            )

    session.answer(revision, people)


@click.command()
@click.argument("name")
@click.option("--in", "environment", metavar="ENV", help="Only this environment.")
@with_session
def history(session: Session, name: str, environment: str | None) -> None:
    """Every revision of what environments ran of the model NAME, canaries among them, newest first."""
    found = session.api.get(at("models", name, "history"), environment=environment)
    session.answer(
        {"revisions": found},
        lambda: table(
            session.console,
            ("ENV", "REVISION", "ACTION", "VERSION", "STATE", "LIVE", "BY", "REASON"),
            [
                (
                    one["environment"],
                    one["number"],
                    one["action"],
                    one["label"],
                    one["state"],
                    when(one["live_at"]),
                    one["principal"],
                    " ".join(part for part in (one["reason"], one["detail"]) if part),
                )
                for one in found
            ],
            empty=f"{name} was never deployed.",
        ),
    )
