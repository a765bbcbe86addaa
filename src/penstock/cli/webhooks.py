"""`penstock webhooks`: who is told of what happens to models, what became of it, and what is sent again."""

import base64
import secrets
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.resource import put, remove
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, table, when
from penstock.core.errors import BadRequest
from penstock.delivery.webhooks import PREFIX

_SECRET_BYTES = 32


@click.group()
def webhooks() -> None:
    """Who is told of what happens to models (docs/webhooks.md)."""


@webhooks.command("list")
@with_session
def list_webhooks(session: Session) -> None:
    """All webhooks, and how far each is."""
    found = [
        one | {"standing": session.api.get(at("webhooks", one["name"], "standing"))}
        for one in session.api.get("/webhooks")
    ]
    session.answer(
        {"webhooks": found},
        lambda: table(
            session.console,
            ("NAME", "URL", "EVENTS", "MODELS", "DELIVERED", "WAITING", "DEAD", ""),
            [
                (
                    one["name"],
                    one["spec"]["url"],
                    one["spec"]["events"],
                    one["spec"]["models"] or "all",
                    one["standing"]["delivered"],
                    one["standing"]["waiting"],
                    one["standing"]["dead"],
                    "" if one["spec"]["enabled"] else "off",
                )
                for one in found
            ],
            empty="There is no webhook: nobody is told.",
        ),
    )


@webhooks.command("create")
@click.argument("name")
@click.option("--to", "receiver", required=True, metavar="URL", help="https://... that messages are posted to.")
@click.option(
    "--secret",
    required=True,
    metavar="FILE",
    help="Name of the file of control's folder of secrets that they are signed with.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="EVENT",
    help="deployment.live, deployment.*; again for more [default: all].",
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="Of this model alone; again for more [default: all]."
)
@with_session
def create(
    session: Session, name: str, receiver: str, secret: str, events: tuple[str, ...], models: tuple[str, ...]
) -> None:
    """Have NAME told of what happens from now on."""
    spec: dict[str, Any] = {"url": receiver, "secret": secret}
    if events:
        spec["events"] = list(events)
    if models:
        spec["models"] = list(models)
    put(session, "Webhook", "webhooks", name, spec, update=False)


@webhooks.command("remove")
@click.argument("name")
@with_session
def remove_webhook(session: Session, name: str) -> None:
    """Tell NAME nothing more; what it was not told of is dropped."""
    remove(session, "Webhook", "webhooks", name)


@webhooks.command("deliveries")
@click.argument("name")
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead"]), help="Only these.")
@with_session
def deliveries(session: Session, name: str, state: str | None) -> None:
    """Messages for NAME, the newest event first: what became of each, and why."""
    found = session.api.get(at("webhooks", name, "deliveries"), state=state)
    session.answer(
        {"deliveries": found},
        lambda: table(
            session.console,
            ("EVENT", "TYPE", "ABOUT", "AT", "STATE", "ATTEMPTS", "NEXT", "TELLS"),
            [
                (
                    one["sequence"],
                    one["type"],
                    one["subject"],
                    when(one["at"]),
                    one["state"],
                    one["attempts"],
                    when(one["next_at"]),
                    one["error"],
                )
                for one in found
            ],
            empty=f"{name} was told of nothing yet.",
        ),
    )


@webhooks.command("redeliver")
@click.argument("name")
@click.argument("event", type=click.IntRange(1), required=False)
@click.option("--dead", is_flag=True, help="All dead letters.")
@with_session
def redeliver(session: Session, name: str, event: int | None, dead: bool) -> None:
    """Send the message of EVENT to NAME again, whatever became of it, or all dead letters."""
    if (event is None) != dead:
        raise BadRequest("Give the EVENT, or --dead for all dead letters.", param="EVENT")
    told = session.api.send("POST", f"{at('webhooks', name)}/redeliver", {"sequence": event})
    session.answer(told, lambda: click.echo(f"{told['redelivered']} are sent again."))


@webhooks.command("test")
@click.argument("name")
@with_session
def test(session: Session, name: str) -> None:
    """Send NAME an event that means nothing, signed like all others."""
    told = session.api.send("POST", f"{at('webhooks', name)}/test")
    session.answer(told, lambda: click.echo(f"It is on its way: penstock webhooks deliveries {name}"))


@webhooks.command("events")
@with_session
def events(session: Session) -> None:
    """What webhooks can be told of."""
    found = session.api.get("/events")
    session.answer({"events": found}, lambda: pairs(session.console, [(one["type"], one["means"]) for one in found]))


@webhooks.command("secret")
def secret() -> None:
    """Print a new secret, for a file of control's folder of secrets and for the receiver."""
    click.echo(PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())
