"""`kind: Webhook`: checked against its secret, and told of what happens from its making on."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change, Control
from penstock.control.kinds import Origin, ResourceKind
from penstock.control.specs.resources import Spec
from penstock.control.specs.webhook import WebhookSpec
from penstock.control.webhooks.secrets import folder_of, read_secrets
from penstock.core.errors import BadRequest
from penstock.delivery.webhooks import is_allowed, parse_networks, refusal
from penstock.store.schema import resources, sequences
from penstock.store.schema_pipelines import webhook_counts, webhook_deliveries

KIND = "Webhook"


class WebhookKind(ResourceKind):
    """Who is told of what."""

    def __init__(self, control: Control) -> None:
        super().__init__(KIND, "webhooks", WebhookSpec)
        self._folder: Path = folder_of(control.settings, control.data)
        self._networks = parse_networks(_listed(control.settings.webhooks.allow_networks))

    def parse(self, spec: object) -> Spec:
        """See `Kind.parse`."""
        parsed = super().parse(spec)
        assert isinstance(parsed, WebhookSpec)
        parts = urlsplit(parsed.url)
        host = parts.hostname or ""
        try:
            why = refusal(host, self._networks)
            if not why and parts.scheme == "http" and not is_allowed(host, self._networks):
                why = f"{host} is spoken to through TLS alone"
        except ValueError:  # a name: what it stands for is looked at each time
            return parsed
        if why:
            raise BadRequest(
                f"spec.url: {why}.",
                param="spec.url",
                code="address_refused",
                hint="The setting webhooks.allow_networks lets networks in.",
            )
        return parsed

    async def put(self, change: Change, name: str, spec: Spec, origin: Origin) -> dict[str, Any]:
        """See `Kind.put`.

        Raises:
            BadRequest: if its secret cannot be read.
        """
        assert isinstance(spec, WebhookSpec)
        read_secrets(self._folder, spec.secret)
        told = await super().put(change, name, spec, origin)
        known = select(webhook_counts.c.webhook).where(webhook_counts.c.webhook == name)
        if (await change.connection.execute(known)).first() is None:
            newest = select(sequences.c.value).where(
                sequences.c.name == "audit"
            )  # this very change: others wait behind it
            position = (await change.connection.execute(newest)).scalar_one()
            await change.connection.execute(
                insert(webhook_counts).values(webhook=name, position=position, delivered=0, failed=0, died=0)
            )
        return told

    async def delete(self, change: Change, name: str) -> None:
        """Remove it with all that it has not been told."""
        await super().delete(change, name)
        for table in (webhook_deliveries, webhook_counts):
            await change.connection.execute(delete(table).where(table.c.webhook == name))


async def webhooks_of(connection: AsyncConnection) -> dict[str, WebhookSpec]:
    """All webhooks, by name."""
    rows = await connection.execute(
        select(resources.c.name, resources.c.spec).where(resources.c.kind == KIND).order_by(resources.c.name)
    )
    return {row.name: WebhookSpec.model_validate(row.spec) for row in rows}


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
