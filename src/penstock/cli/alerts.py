"""`penstock alerts`: what Alertmanager has told control."""

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when


@click.group()
def alerts() -> None:
    """Alerts that Alertmanager has told of."""


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
            empty="Nothing fires." if state == "firing" else "Alertmanager has told of no alert.",
        ),
    )
