"""`penstock policies`: what is kept of requests, and which content rules apply."""

from typing import Any

import click

from penstock.cli.documents import read_spec
from penstock.cli.resource import Command, file_flag, old_spec, put, remove
from penstock.cli.session import Session, with_session
from penstock.cli.show import table


@click.group()
def policies() -> None:
    """What is kept of requests, and which content rules apply."""


def _policy_flags(command: Command) -> Command:
    for option in reversed(
        (
            click.option(
                "--capture", type=click.Choice(["none", "masked", "full"]), help="Content kept in the journal."
            ),
            click.option(
                "--capture-share", type=click.FloatRange(0, 1), help="Share of the requests whose content is kept."
            ),
            click.option(
                "--audit", type=click.Choice(["buffered", "strict"]), help="Whether replies wait for the disk."
            ),
            click.option(
                "--ledger-down", type=click.Choice(["open", "closed"]), help="Limits while their ledger is away."
            ),
            click.option(
                "--retention-days", type=click.IntRange(1, 36500), help="Days that exchanges stay for analysis."
            ),
            file_flag,
        )
    ):
        command = option(command)
    return command


def _policy_spec(spec: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    new = {**spec, **(read_spec(flags["path"], "Policy") if flags.get("path") else {})}
    return new | {
        name: flags[name]
        for name in ("capture", "capture_share", "audit", "ledger_down", "retention_days")
        if flags.get(name) is not None
    }


@policies.command("list")
@with_session
def list_policies(session: Session) -> None:
    """All policies."""
    found = session.api.get("/policies")
    session.answer(
        {"policies": found},
        lambda: table(
            session.console,
            ("NAME", "CAPTURE", "AUDIT", "RULES"),
            [
                (p["name"], p["spec"]["capture"], p["spec"]["audit"], [rule["name"] for rule in p["spec"]["rules"]])
                for p in found
            ],
            empty="There is no policy: nothing is kept of content, and no rule applies.",
        ),
    )


@policies.command("create")
@click.argument("name")
@_policy_flags
@with_session
def create_policy(session: Session, name: str, **flags: Any) -> None:
    """Create the policy NAME; its rules come from FILE."""
    put(session, "Policy", "policies", name, _policy_spec({}, flags), update=False)


@policies.command("update")
@click.argument("name")
@_policy_flags
@with_session
def update_policy(session: Session, name: str, **flags: Any) -> None:
    """Change what is given of the policy NAME; the rest stays."""
    put(session, "Policy", "policies", name, _policy_spec(old_spec(session, "policies", name), flags), update=True)


@policies.command("revoke")
@click.argument("name")
@with_session
def revoke_policy(session: Session, name: str) -> None:
    """Remove the policy NAME."""
    remove(session, "Policy", "policies", name)
