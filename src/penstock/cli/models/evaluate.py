"""`penstock models evaluate|sign|verify`: what versions answer to suites, and who vouches for them."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.evaluations import show_evaluation, watch
from penstock.cli.session import Session, with_session
from penstock.cli.show import table
from penstock.core.errors import Conflict
from penstock.core.references import parse_reference

_made_here = click.option(
    "--precision",
    type=click.Choice(["int8", "int4", "fp16", "fp32"]),
    help="The build in it that was made here [default: the version, with what it brought].",
)


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--suite", required=True, metavar="NAME", help="Suite that it answers: NAME, or NAME@sha256:...")
@click.option(
    "--precision",
    type=click.Choice(["int8", "int4", "fp16", "fp32"]),
    help="Build that is evaluated [default: int8, if there is one].",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="Of answers and canaries."
)
@click.option("--judge", metavar="REF", help="Version that judges, for suites with questions for one.")
@click.option("--again", is_flag=True, help="Measure anew, even if that was done.")
@click.option("--wait/--no-wait", default=True, help="Watch it until it is done [default: yes].")
@with_session
def evaluate(
    session: Session,
    reference: str,
    suite: str,
    precision: str | None,
    seed: int,
    judge: str | None,
    again: bool,
    wait: bool,
) -> None:
    """Have a version answer a suite, on the real engine, away from users' traffic.

    What was measured already of the same build, suite, settings and engine is told as it is.
    """
    wanted = parse_reference(reference)
    body = {
        "model": wanted.name,
        "label": wanted.label or wanted.digest or f"@{wanted.alias}",
        "suite": suite,
        "precision": precision,
        "seed": seed,
        "judge": judge,
        "again": again,
    }
    told = session.api.send("POST", "/evaluations", body)
    if wait:
        [told] = watch(session, [told["id"]])
    show_evaluation(session, told)


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--signer", required=True, metavar="NAME", help="Who vouches for it.")
@_made_here
@with_session
def sign(session: Session, reference: str, signer: str, precision: str | None) -> None:
    """Have a signer vouch for a version: for its digest, and so for every byte of it; a build that was made here is signed by itself."""
    found = _resolved(session, reference)
    told = session.api.send("POST", _signatures(found), {"signer": signer, "precision": precision})
    what = f"{found['model']}:{found['label']}" if precision is None else f"The build in {precision}"
    session.answer(
        {"digest": found["digest"], "signatures": told}, lambda: click.echo(f"{what} is signed by {signer}.")
    )


@click.command()
@click.argument("reference", metavar="REF")
@_made_here
@with_session
def verify(session: Session, reference: str, precision: str | None) -> None:
    """Who vouches for a version, or for a build that was made of it: every signature is checked. Exit status 1 if nobody does."""
    found = _resolved(session, reference)
    told = session.api.get(_signatures(found), precision=precision)
    if not told:
        what = f"{found['model']}:{found['label']}{f' in {precision}' if precision else ''}"
        raise Conflict(f"Nobody who is trusted has signed {what}.", code="not_signed")
    session.answer(
        {"digest": found["digest"], "signatures": told},
        lambda: table(session.console, ("SIGNED BY", "KEY"), [(s["signer"], s["public"]) for s in told], empty=""),
    )


def _resolved(session: Session, reference: str) -> dict[str, Any]:
    parse_reference(reference)
    found: dict[str, Any] = session.api.get("/resolve", ref=reference)
    return found


def _signatures(found: dict[str, Any]) -> str:
    return f"{at('models', found['model'], 'versions', found['digest'])}/signatures"
