"""What the console reads of the API's answers about pipelines and webhooks."""

from typing import Any

import msgspec

from penstock.registry.gates import Outcome


class PipelineStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step; times are Unix seconds."""

    number: int
    kind: str
    environment: str
    state: str
    words: str
    outcomes: tuple[Outcome, ...] = ()
    evaluations: tuple[str, ...] = ()
    revision: str = ""
    canary: str = ""
    waits_since: float | None = None
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.kind} {self.environment}".strip()


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """One pipeline with its steps."""

    id: str
    model: str
    label: str
    digest: str
    state: str
    words: str
    principal: str
    created_at: float
    plan: dict[str, Any]
    steps: tuple[PipelineStep, ...]
    ended_at: float | None = None

    @property
    def current(self) -> PipelineStep:
        """The step that is under way, or the last that was."""
        return [one for one in self.steps if one.started_at is not None][-1]

    @property
    def done(self) -> int:
        """How many steps are done."""
        return sum(one.state == "done" for one in self.steps)


class WebhookSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook is told of."""

    url: str
    secret: str
    events: tuple[str, ...]
    models: tuple[str, ...] | None = None
    enabled: bool = True


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook."""

    name: str
    spec: WebhookSpec


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a webhook is."""

    delivered: int
    failed: int
    died: int
    waiting: int
    dead: int


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one message; times are Unix seconds."""

    sequence: int
    type: str
    subject: str
    at: float
    state: str
    attempts: int
    error: str = ""
    next_at: float | None = None
