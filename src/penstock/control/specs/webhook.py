"""The spec of a webhook: who is told of what, and the name of the secret that messages are signed with."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from penstock.control.specs.resources import Name, Spec
from penstock.delivery.events import known_pattern


class WebhookSpec(Spec):
    """One receiver."""

    url: str = Field(max_length=2048, description="https://... that messages are posted to.")
    secret: str = Field(
        pattern="^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?$",
        description="Name of the file, below the folder of secrets, that holds whsec_...; a second line is the one that was before.",
    )
    events: list[Annotated[str, Field(max_length=64)]] = Field(
        default=["*"],
        min_length=1,
        max_length=64,
        description="Which: deployment.live, deployment.*, or * for all.",
    )
    models: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Of which models; left out: of all."
    )
    enabled: bool = Field(default=True, description="false: what happens is kept for it, and sent when it is on again.")

    @field_validator("url")
    @classmethod
    def _is_one(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"{url!r} is no URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.fragment:
            raise ValueError(f"{url!r} is not https://HOST/PATH")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("a URL is of printable ASCII: write other letters in their encoded form")
        if "@" in parts.netloc:
            raise ValueError("a URL must not hold a user or password")
        return url

    @field_validator("events")
    @classmethod
    def _are_known(cls, events: list[str]) -> list[str]:
        for one in events:
            if not known_pattern(one):
                raise ValueError(f"{one!r} names no event: 'penstock webhooks events' lists them")
        return events
