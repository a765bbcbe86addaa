"""`penstock canary start|list|status|abort|promote|pause|resume`: trying a version out on a share of the traffic."""

import time
from typing import Any

import click

from penstock.cli.canary_plan import given_plan, plan_flags
from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, share, table, when
from penstock.core.references import parse_reference

_reason = click.option("--reason", default="", help="Why, for the history.")


@click.group()
def canary() -> None:
    """Try a version out on a share of the traffic: it is promoted if it does no harm, and undone if it does."""


def begin(session: Session, reference: str, environment: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask control to try out `reference`."""
    wanted = parse_reference(reference)
    label = wanted.label or wanted.digest or f"@{wanted.alias}"
    asked = {"model": wanted.name, "label": label, "environment": environment, **body}
    told: dict[str, Any] = session.api.send("POST", "/canaries", asked)
    return told


def say_begun(told: dict[str, Any]) -> None:
    """What people read when a canary has begun."""
    steps = ", ".join(share(step) for step in told["steps"])
    click.echo(
        f"{told['model']}:{told['label']} is tried out in {told['environment']} against {told['incumbent']}: {steps} of the traffic."
    )
    click.echo(
        f"'penstock canary status {told['name']}' tells how it goes; 'penstock canary abort {told['name']}' takes it back."
    )


@canary.command("start")
@click.argument("reference", metavar="NAME:LABEL")
@click.option("--to", "environment", required=True, metavar="ENV", help="Environment whose traffic it gets a share of.")
@plan_flags
@click.option(
    "--precision", type=click.Choice(["int8", "int4", "fp16", "fp32"]), help="Build to run [default: as now]."
)
@click.option("--replicas", type=click.IntRange(1, 64), help="How many [default: as now].")
@_reason
@with_session
def start(
    session: Session,
    reference: str,
    environment: str,
    precision: str | None,
    replicas: int | None,
    reason: str,
    **plan: Any,
) -> None:
    """Try out a version against what ENV serves now, by a plan."""
    told = begin(
        session,
        reference,
        environment,
        {
            "precision": precision,
            "replicas": replicas,
            "reason": reason,
            "plan": given_plan(plan),
        },
    )
    session.answer(told, lambda: say_begun(told))


@canary.command("list")
@click.option("--state", type=click.Choice(["running", "promoted", "rolled_back", "aborted"]), help="Only these.")
@with_session
def list_canaries(session: Session, state: str | None) -> None:
    """All canaries, newest first."""
    found = session.api.get("/canaries", state=state)
    session.answer(
        {"canaries": found},
        lambda: table(
            session.console,
            ("CANARY", "VERSION", "ENV", "STATE", "SHARE", "STARTED", "BY", "WHY"),
            [
                (
                    one["name"],
                    f"{one['model']}:{one['label']}",
                    one["environment"],
                    one["state"],
                    share(one["share"]),
                    when(one["started_at"]),
                    one["started_by"],
                    one["words"][0] if one["words"] else one["reason"],
                )
                for one in found
            ],
            empty="There was no canary; 'penstock canary start NAME:LABEL --to ENV' begins one.",
        ),
    )


@canary.command("status")
@click.argument("name")
@click.option("--wait", "wait_s", type=click.FloatRange(0, 86_400), default=0.0, help="Seconds to wait for its end.")
@with_session
def status(session: Session, name: str, wait_s: float) -> None:
    """Where a canary stands: NAME is its own, or the model's for the newest of that."""
    until = time.monotonic() + wait_s
    told = session.api.get(at("canaries", name))
    while told["ended_at"] is None and time.monotonic() < until:
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))
        told = session.api.get(at("canaries", told["name"]))
    session.answer(told, lambda: _show(session, told))


def _show(session: Session, told: dict[str, Any]) -> None:
    pairs(
        session.console,
        [
            (
                "canary",
                f"{told['name']} ({told['model']}:{told['label']} against {told['incumbent']} in {told['environment']})",
            ),
            ("state", told["state"] + (" (blocked)" if told["blocked"] else "")),
            ("share", f"{share(told['share'])}, step {told['step']} of {len(told['steps'])}"),
            (
                "started",
                f"{when(told['started_at'])} by {told['started_by']}"
                + (f": {told['reason']}" if told["reason"] else ""),
            ),
            ("ended", f"{when(told['ended_at'])} by {told['ended_by']}" if told["ended_at"] else None),
        ],
    )
    if told["lapsed"]:
        session.console.print(
            "  [red]its share has lapsed[/]: all traffic is on the incumbent until it is watched again"
        )
    for line in told["words"] or [*told["verdict"]["reasons"], *told["waits"]]:
        session.console.print(f"  {line}", markup=False)
    session.console.print()
    table(
        session.console,
        ("GUARDRAIL", "EVIDENCE", "OF ITS LIMIT", ""),
        [
            (
                one["metric"],
                f"{max(0.0, one['evidence']):.2f} of {one['limit']:.2f}",
                f"{one['gauge'] * 100:.0f} %",
                "tripped" if one["tripped"] else "",
            )
            for one in told["guardrails"]
        ],
        empty="It has no guardrail.",
    )


@canary.command("abort")
@click.argument("name")
@click.option("--block", is_flag=True, help="Keep the version out of the environment until it is cleared.")
@_reason
@with_session
def abort(session: Session, name: str, block: bool, reason: str) -> None:
    """Take a canary back at once: all traffic goes to the incumbent."""
    told = session.api.send("POST", f"{at('canaries', name)}/abort", {"reason": reason, "block": block})
    session.answer(told, lambda: click.echo(f"All traffic is on {told['model']}:{told['incumbent']}."))


@canary.command("promote")
@click.argument("name")
@_reason
@click.option(
    "--override", default="", metavar="WHY", help="Though its gates are not passed any more; administrators may."
)
@with_session
def promote(session: Session, name: str, reason: str, override: str) -> None:
    """Give a canary all of the traffic without waiting for its plan; its gates are asked once more."""
    body = {"reason": reason} | ({"override": override} if override else {})
    told = session.api.send("POST", f"{at('canaries', name)}/promote", body)
    session.answer(told, lambda: click.echo(f"{told['model']}:{told['label']} is live in {told['environment']}."))


@canary.command("pause")
@click.argument("name")
@_reason
@with_session
def pause(session: Session, name: str, reason: str) -> None:
    """Send all traffic to the incumbent until the canary is resumed; what is known of it stays."""
    _turn(session, name, "pause", reason)


@canary.command("resume")
@click.argument("name")
@with_session
def resume(session: Session, name: str) -> None:
    """Go on after a pause, with the same share."""
    _turn(session, name, "start", "")


def _turn(session: Session, name: str, action: str, reason: str) -> None:
    experiment = session.api.get(at("canaries", name))["name"]
    session.api.send("POST", f"{at('experiments', experiment)}/{action}", {"reason": reason})
    told = session.api.get(at("canaries", experiment))
    session.answer(told, lambda: click.echo(f"The canary {told['name']} is {told['state']}."))
