"""What the console reads of the API's answers; fields that it does not show are not here, and unknown ones are passed over.

Plain shapes alone; those of requests, experiments, versions, builds and content have files of their own beside this one.
"""

from typing import Any

import msgspec

from penstock.delivery.revisions import RevisionState
from penstock.experiments.verdict import ArmTraffic, Gauge


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed in."""

    name: str
    roles: tuple[str, ...] = ()
    tenant: str | None = None


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of durations, in seconds; none where nothing was measured."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket of time; `at` is its start in Unix seconds, times are in seconds."""

    at: float
    requests: int = 0
    errors: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    latency_p99_s: float | None = None
    first_token_p50_s: float | None = None
    first_token_p95_s: float | None = None


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Of all requests of a window."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class Engagement(msgspec.Struct, frozen=True, kw_only=True):
    """What came of sessions; docs/metrics.md defines the words."""

    sessions: int = 0
    conversions: int = 0
    feedback: int = 0
    reports: int = 0
    engagement_rate: float | None = None
    requests_per_session: float | None = None
    session_s: float | None = None
    conversion_rate: float | None = None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one window that ends at `at`."""

    at: float
    window_s: float
    requests: int = 0
    errors: int = 0
    refused: int = 0
    cost_usd: float = 0.0
    tokens: Tokens = Tokens()
    latency_s: Quantiles = Quantiles()
    first_token_s: Quantiles = Quantiles()
    engagement: Engagement = Engagement()
    series: tuple[Point, ...] = ()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One time that an alert fired; times are Unix seconds."""

    name: str
    severity: str = ""
    summary: str = ""
    runbook: str = ""
    starts_at: float = 0.0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the Snapshot that a worker cannot use, and refuses."""

    kind: str
    name: str
    why: str


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway worker, as it last reported."""

    worker: str
    host: str = ""
    pid: int = 0
    generation: int = 0
    at: float = 0.0
    refused: str = ""  # why it refused a newer Snapshot
    faults: tuple[Fault, ...] = ()
    fault_count: int = 0


class Gateways(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, and the generation that they should have."""

    generation: int
    gateways: tuple[Gateway, ...] = ()


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment runs of a model."""

    environment: str
    model: str
    label: str
    digest: str
    state: str = "live"
    number: int = 0
    principal: str = ""
    created_at: float = 0.0
    live_at: float | None = None
    generation: int = 0
    wanted: str | None = None  # label that is warming up, if another than `label`
    wanted_revision: str = ""  # its id
    detail: str = ""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One change of what an environment runs of a model."""

    id: str
    environment: str
    number: int
    action: str
    label: str
    digest: str
    state: RevisionState
    config: dict[str, Any] = {}
    detail: str = ""
    reason: str = ""
    principal: str = ""
    created_at: float = 0.0
    live_at: float | None = None


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Why a version may not be deployed in an environment."""

    environment: str
    label: str
    reason: str = ""
    principal: str = ""
    at: float = 0.0


class CanaryLine(msgspec.Struct, frozen=True, kw_only=True):
    """A canary, as a list tells of it."""

    name: str
    model: str
    environment: str
    label: str
    incumbent: str
    state: str
    share: float = 0.0
    step: int = 1
    steps: tuple[float, ...] = ()
    reason: str = ""
    started_at: float | None = None
    started_by: str = ""
    expires_at: float | None = None
    ended_at: float | None = None
    ended_by: str | None = None
    words: tuple[str, ...] = ()


class CanaryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Of a canary's plan, what is shown."""

    minutes: float
    samples: int
    unit: str
    metric: str
    margin: float
    guardrail_alpha: float


class CanaryStep(msgspec.Struct, frozen=True, kw_only=True):
    """A share that a canary has had."""

    share: float
    started_at: float


class CanaryVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What its experiment shows, in words."""

    state: str = "running"
    reasons: tuple[str, ...] = ()


class Canary(CanaryLine, frozen=True, kw_only=True):
    """A canary, whole."""

    plan: CanaryPlan
    ramp: tuple[CanaryStep, ...] = ()
    verdict: CanaryVerdict = CanaryVerdict()
    guardrails: tuple[Gauge, ...] = ()
    arms: tuple[ArmTraffic, ...] = ()
    waits: tuple[str, ...] = ()
    lapsed: bool = False
    blocked: bool = False


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """A version converted to one precision and engine; `made` here, or brought along."""

    precision: str
    engine: str
    digest: str
    size: int = 0
    made: bool = False


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a version."""

    path: str
    digest: str
    size: int = 0


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model."""

    model: str
    label: str
    digest: str
    state: str = ""
    scheme: str = ""
    number: int = 0
    size: int = 0
    created_at: float = 0.0
    created_by: str = ""
    card: str = ""
    aliases: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    builds: tuple[Build, ...] = ()
    files: tuple[File, ...] = ()
    code: str | None = None
    pickles: tuple[str, ...] = ()
    signed_by: tuple[str, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model: the name that its versions share."""

    name: str
    description: str = ""
    created_at: float = 0.0
    created_by: str = ""
    versions: int = 0
    latest: str | None = None


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """What all versions take: bytes of their files, and of what is stored for them."""

    versions: int = 0
    logical: int = 0
    stored: int = 0


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key; its text is never told again."""

    id: str
    name: str = ""
    tenant: str | None = None
    principal: str | None = None
    roles: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None
    limits: dict[str, Any] = {}
    model_limits: dict[str, dict[str, Any]] = {}
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A principal: a person or a program, whose keys carry its roles."""

    id: str
    name: str
    roles: tuple[str, ...] = ()
    created_at: float = 0.0
    disabled_at: float | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: the border of caches, journals and limits."""

    name: str
    spec: dict[str, Any] = {}
