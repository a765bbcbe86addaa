"""What the console reads of the API's answers; fields that it does not show are not here, and unknown ones are passed over."""

from typing import Any

import msgspec

from penstock.core.exchange import Exchange, Observation
from penstock.experiments.design import Design
from penstock.experiments.verdict import Verdict


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
    """One bucket of time; `at` is its start in Unix seconds."""

    at: float
    requests: int = 0
    errors: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    latency_s: Quantiles = Quantiles()
    first_token_s: Quantiles = Quantiles()


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one window that ends now."""

    window_s: float
    bucket_s: float = 60.0
    requests: int = 0
    errors: int = 0
    cost_usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    latency_s: Quantiles = Quantiles()
    first_token_s: Quantiles = Quantiles()
    points: tuple[Point, ...] = ()


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway worker, as it last reported."""

    worker: str
    pid: int = 0
    generation: int = 0
    at: float = 0.0


class Gateways(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, and the generation that they should have."""

    generation: int
    gateways: tuple[Gateway, ...] = ()


class Exchanges(msgspec.Struct, frozen=True, kw_only=True):
    """A page of requests, newest first; `next` continues it."""

    exchanges: tuple[Exchange, ...] = ()
    next: str | None = None


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One request, and what was said of it."""

    exchange: Exchange
    observations: tuple[Observation, ...] = ()


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
    wanted: str | None = None  # label that is warming up, if another than `label`
    detail: str = ""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One change of what an environment runs of a model."""

    id: str
    environment: str
    number: int
    action: str
    label: str
    digest: str
    state: str
    detail: str = ""
    reason: str = ""
    principal: str = ""
    created_at: float = 0.0
    live_at: float | None = None


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """A version converted to one precision and engine."""

    precision: str
    engine: str
    digest: str
    size: int = 0


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
    metadata: dict[str, Any] = {}
    builds: tuple[Build, ...] = ()
    files: tuple[File, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model: the name that its versions share."""

    name: str
    description: str = ""
    created_at: float = 0.0
    created_by: str = ""
    versions: int = 0
    latest: str | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key; its text is never told again."""

    id: str
    name: str = ""
    tenant: str | None = None
    principal: str | None = None
    roles: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None
    limits: dict[str, Any] = {}
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: the border of caches, journals and limits."""

    name: str
    spec: dict[str, Any] = {}


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment: what was registered, how it stands, and what is known."""

    name: str
    state: str
    spec: Design
    verdict: Verdict | None = None
    created_at: float = 0.0
    created_by: str = ""
    started_at: float | None = None
    ended_at: float | None = None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of one metric of one treatment at one moment."""

    at: float
    metric: str
    arm: str
    n: int = 0
    control_n: int = 0
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
