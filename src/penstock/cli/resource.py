"""What the groups of resources share: the flags of limits, and how one is written and removed."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument
from penstock.cli.session import Session
from penstock.core.errors import BadRequest

Command = Any
_WINDOWS = {"minute": "a minute", "day": "in 24 hours", "month": "in 30 days"}
_KINDS = {"requests": "requests", "tokens": "tokens", "usd": "US dollars"}
_LIMITS = ("concurrency", *(f"{kind}_per_{window}" for kind in _KINDS for window in _WINDOWS))
file_flag = click.option("-f", "--file", "path", type=file_argument, help="YAML file with the whole spec; - is stdin.")


def limit_flags(command: Command) -> Command:
    """Adds the flags of limits to a command."""
    options = [click.option("--concurrency", type=click.IntRange(0), help="Most requests at a time.")]
    for kind, things in _KINDS.items():
        values = click.FloatRange(0) if kind == "usd" else click.IntRange(0)
        options += [
            click.option(f"--{kind}-per-{window}", type=values, help=f"Most {things} {time}.")
            for window, time in _WINDOWS.items()
        ]
    for option in reversed(options):
        command = option(command)
    return command


def given_limits(flags: dict[str, Any]) -> dict[str, Any]:
    """The limits among `flags`."""
    return {name: flags[name] for name in _LIMITS if flags.get(name) is not None}


def model_limit_flag(command: Command) -> Command:
    """Adds the flag of limits on one model to a command."""
    return click.option(
        "--model-limit",
        "model_limits",
        multiple=True,
        metavar="MODEL:LIMIT=VALUE",
        help="Limit on one model, such as support-bot:tokens_per_minute=5000; again for more.",
    )(command)


def given_model_limits(flags: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    """The limits by model among `flags`, added to the `old` ones.

    Raises:
        BadRequest: if one is not written MODEL:LIMIT=VALUE.
    """
    limits = {model: {k: v for k, v in own.items() if v is not None} for model, own in (old or {}).items()}
    for text in flags.get("model_limits") or ():
        where, _, value = text.partition("=")
        model, _, name = where.rpartition(":")
        try:
            amount = float(value) if name.startswith("usd_") else int(value)
        except ValueError:
            amount = -1
        if not model or name not in _LIMITS or amount < 0:
            raise BadRequest(
                f"--model-limit {text}: write MODEL:LIMIT=VALUE, LIMIT being one of {', '.join(_LIMITS)}.",
                param="--model-limit",
            )
        limits.setdefault(model, {})[name] = amount
    return limits


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
