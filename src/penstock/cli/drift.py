"""`penstock drift show|days|accept`: whether models are asked, and answer, as they did."""

import time
from typing import Any

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import share, table, when

_arm = click.option("--arm", default="", metavar="EXPERIMENT/ARM", help="Of an experiment [default: none].")


@click.group()
def drift() -> None:
    """Whether what models are asked, what they answer and what users say of it is as it was."""


@drift.command("show")
@click.argument("model", required=False, metavar="[NAME|NAME:LABEL|ROUTE]")
@click.option("--ended", is_flag=True, help="Also versions that were replaced.")
@with_session
def show(session: Session, model: str | None, ended: bool) -> None:
    """Every signal that is watched, and how far each is on its way to an alarm."""
    found = session.api.get("/drift", model=model, ended="true" if ended else None)

    def people() -> None:
        for group in found:
            for one in group["signals"]:
                if one["alarm"] is not None:
                    click.echo(f"{_named(group)}: {one['alarm']['words']} ({when(one['alarm']['at'])})")
        table(
            session.console,
            ("MODEL", "SIGNAL", "AGAINST", "STATE", "REFERENCE", "LATELY", "SEEN", "TO AN ALARM", "PSI TODAY"),
            [_row(group, one) for group in found for one in group["signals"] if one["observations"] or one["watched"]],
            empty="Nothing is watched yet: it begins with the first request to a model.",
        )

    session.answer({"drift": found}, people)


def _named(group: dict[str, Any]) -> str:
    return f"{group['model']} in {group['arm']}" if group["arm"] else str(group["model"])


def _row(group: dict[str, Any], one: dict[str, Any]) -> tuple[Any, ...]:
    state = f"gathering {one['observations']}/{one['needed']}" if one["state"] == "gathering" else one["state"]
    today = one["today"]
    return (
        _named(group),
        one["signal"],
        one["against"],
        state,
        one["reference"],
        one["recent"],
        one["watched"],
        share(round(one["standing"], 3)),
        None if today is None else round(today["psi"], 3),
    )


@drift.command("days")
@click.argument("model", metavar="NAME:LABEL|ROUTE")
@_arm
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@with_session
def days(session: Session, model: str, arm: str, limit: int) -> None:
    """Each day that is over against the reference, signal by signal, the newest first.

    A day has shifted if its PSI is 0.25 at least and chance makes such a difference (Kolmogorov-Smirnov, or Fisher's exact test) once in a million
    tests at most.
    """
    found = session.api.get("/drift/days", model=model, arm=arm, limit=limit)
    session.answer(
        {"days": found},
        lambda: table(
            session.console,
            ("DAY", "SIGNAL", "SEEN", "PSI", "DISTANCE", "P", "SHIFTED"),
            [
                (
                    time.strftime("%Y-%m-%d", time.gmtime(one["day"] * 86400)),
                    one["signal"],
                    one["n"],
                    round(one["psi"], 4),
                    round(one["distance"], 4),
                    one["p"],
                    one["shifted"],
                )
                for one in found
            ],
            empty=f"No day of {model} is over yet.",
        ),
    )


@drift.command("accept")
@click.argument("model", metavar="NAME:LABEL|ROUTE")
@_arm
@click.option("--signal", help="Only this one [default: all].")
@click.option("--reason", required=True, help="Why the change is as it should be, for the record.")
@with_session
def accept(session: Session, model: str, arm: str, signal: str | None, reason: str) -> None:
    """Take a change for what is to be: the alarm is over, and a new reference begins."""
    body = {"model": model, "arm": arm, "signal": signal, "reason": reason}
    told = session.api.send("POST", "/drift/accept", body)
    session.answer(told, lambda: click.echo(f"A new reference of {model} begins with the next requests."))
