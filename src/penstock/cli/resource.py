"""What the groups of resources share: the flags of limits, and how one is written and removed."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument
from penstock.cli.session import Session

Command = Any
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency", "usd_per_day")
file_flag = click.option("-f", "--file", "path", type=file_argument, help="YAML file with the whole spec; - is stdin.")


def limit_flags(command: Command) -> Command:
    """Adds the flags of limits to a command."""
    for option in reversed(
        (
            click.option("--requests-per-minute", type=click.IntRange(0), help="Most requests a minute."),
            click.option("--tokens-per-minute", type=click.IntRange(0), help="Most tokens a minute."),
            click.option("--concurrency", type=click.IntRange(0), help="Most requests at a time."),
            click.option("--usd-per-day", type=click.FloatRange(0), help="Most US dollars a day."),
        )
    ):
        command = option(command)
    return command


def given_limits(flags: dict[str, Any]) -> dict[str, Any]:
    """The limits among `flags`."""
    return {name: flags[name] for name in _LIMITS if flags.get(name) is not None}


def put(session: Session, kind: str, plural: str, name: str, spec: dict[str, Any], *, update: bool) -> None:
    """Creates the resource, or replaces it, and says so."""
    body = {"kind": kind, "name": name, "spec": spec}
    told = session.api.send(*(("PUT", at(plural, name)) if update else ("POST", at(plural))), body)
    done = "changed" if update else "created"
    session.answer(told, lambda: click.echo(f"{kind} {name} is {done}."))


def old_spec(session: Session, plural: str, name: str) -> dict[str, Any]:
    """The spec that is there."""
    spec: dict[str, Any] = session.api.get(at(plural, name))["spec"]
    return spec


def remove(session: Session, kind: str, plural: str, name: str) -> None:
    """Removes the resource and says so."""
    session.api.send("DELETE", at(plural, name))
    session.answer({"kind": kind, "name": name, "removed": True}, lambda: click.echo(f"{kind} {name} is removed."))
