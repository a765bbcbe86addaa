"""`penstock routes`: the model names that clients ask for."""

from typing import Any

import click

from penstock.cli.documents import read_spec
from penstock.cli.resource import Command, file_flag, given_limits, limit_flags, old_spec, put, remove
from penstock.cli.session import Session, with_session
from penstock.cli.show import table
from penstock.core.errors import BadRequest


@click.group()
def routes() -> None:
    """Model names that clients ask for, and where each leads."""


def _target(text: str) -> dict[str, Any]:
    name, equals, weight = text.partition("=")
    try:
        share = float(weight) if equals else 1.0
    except ValueError:
        raise BadRequest(f"--to {text}: {weight!r} is no weight; write POOL=0.5.", param="--to") from None
    if name.startswith("model:"):
        model, _, environment = name.removeprefix("model:").partition("@")
        return {"model": model, "weight": share, **({"env": environment} if environment else {})}
    return {"pool": name, "weight": share}


def _route_flags(command: Command) -> Command:
    for option in reversed(
        (
            click.option(
                "--to", multiple=True, metavar="POOL[=WEIGHT]", help="Pool, or model:NAME[@ENV]; again for more."
            ),
            click.option("--cache", type=click.Choice(["off", "exact"]), help="Keep answers and give them again."),
            click.option("--cache-ttl-s", type=click.FloatRange(0, min_open=True), help="How long, seconds."),
            click.option("--policy", help="Policy of its requests."),
            file_flag,
        )
    ):
        command = option(command)
    return limit_flags(command)


def _route_spec(spec: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    new = {**spec, **(read_spec(flags["path"], "Route") if flags.get("path") else {})}
    if flags.get("to"):
        new["to"] = [_target(text) for text in flags["to"]]
    cache = {k: flags[f] for k, f in (("mode", "cache"), ("ttl_s", "cache_ttl_s")) if flags.get(f) is not None}
    if cache:
        new["cache"] = {**(new.get("cache") or {}), **cache}
    if flags.get("policy") is not None:
        new["policy"] = flags["policy"]
    if limits := given_limits(flags):
        new["limits"] = {**(new.get("limits") or {}), **limits}
    return new


def _leads(target: dict[str, Any]) -> str:
    name = target.get("pool") or f"model:{target['model']}" + (f"@{target['env']}" if target.get("env") else "")
    return f"{name}={target.get('weight', 1.0):g}"


@routes.command("list")
@with_session
def list_routes(session: Session) -> None:
    """All routes that were created; a deployed model has one of its own name beside these."""
    found = session.api.get("/routes")
    session.answer(
        {"routes": found},
        lambda: table(
            session.console,
            ("NAME", "TO", "CACHE", "POLICY"),
            [
                (r["name"], [_leads(t) for t in r["spec"]["to"]], r["spec"]["cache"]["mode"], r["spec"]["policy"])
                for r in found
            ],
            empty="There is no route beside those of deployed models.",
        ),
    )


@routes.command("create")
@click.argument("name")
@_route_flags
@with_session
def create_route(session: Session, name: str, **flags: Any) -> None:
    """Create the route NAME."""
    put(session, "Route", "routes", name, _route_spec({}, flags), update=False)


@routes.command("update")
@click.argument("name")
@_route_flags
@with_session
def update_route(session: Session, name: str, **flags: Any) -> None:
    """Change what is given of the route NAME; the rest stays."""
    put(session, "Route", "routes", name, _route_spec(old_spec(session, "routes", name), flags), update=True)


@routes.command("revoke")
@click.argument("name")
@with_session
def revoke_route(session: Session, name: str) -> None:
    """Remove the route NAME."""
    remove(session, "Route", "routes", name)
