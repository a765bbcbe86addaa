"""`penstock alerts`: what Alertmanager has told control, and what control has found in the records."""

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when


@click.group()
def alerts() -> None:
    """What fires, and what did: Alertmanager's alerts and log alerts."""


@alerts.command("list")
@click.option("--state", type=click.Choice(["firing", "resolved"]), help="Only these [default: both].")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@with_session
def list_alerts(session: Session, state: str | None, limit: int) -> None:
    """Each time that an alert fired, the newest first."""
    found = session.api.get("/alerts", state=state, limit=limit)
    session.answer(
        {"alerts": found},
        lambda: table(
            session.console,
            ("ALERT", "SEVERITY", "STATE", "SINCE", "UNTIL", "WHAT", "RUNBOOK"),
            [
                (
                    a["name"],
                    a["severity"],
                    a["state"],
                    when(a["starts_at"]),
                    when(a["ends_at"]),
                    a["summary"],
                    a["runbook"],
                )
                for a in found
            ],
            empty="Nothing fires." if state == "firing" else "There has been no alert.",
        ),
    )


@alerts.command("actions")
@click.option("--in", "environment", metavar="ENV", help="Only this environment.")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@with_session
def list_actions(session: Session, environment: str | None, model: str | None, limit: int) -> None:
    """What alerts did by an environment's `auto_rollback`, and why they did nothing, the newest first."""
    found = session.api.get("/alerts/actions", environment=environment, model=model, limit=limit)
    session.answer(
        {"actions": found},
        lambda: table(
            session.console,
            ("WHEN", "ALERT", "ENV", "VERSION", "DID", "WHY"),
            [
                (when(a["at"]), a["alert"], a["environment"], f"{a['model']}:{a['label']}", a["action"], a["reason"])
                for a in found
            ],
            empty="No alert has done anything.",
        ),
    )
