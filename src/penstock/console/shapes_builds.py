"""What the API tells of builds: the jobs that make them, and what each costs and gains."""

import msgspec


class BuildStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a job did, and for how long; None: it is at it."""

    step: str
    seconds: float | None = None


class BuildJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that makes a build."""

    id: str
    precision: str
    state: str
    detail: str = ""
    converter: str = ""
    requested_by: str = ""
    created_at: float = 0.0
    steps: tuple[BuildStep, ...] = ()


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a build is."""

    tokens_per_second: float
    seconds_per_answer: float
    low: float | None = None
    high: float | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of a suite, and how it differs from the widest build."""

    suite: str
    measure: str
    items: int
    value: float
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One build that could serve, and what it costs and gains."""

    version: str
    precision: str
    relation: str = ""
    build: str = ""
    size: int | None = None
    baseline: bool = False
    speed: Speed | None = None
    quality: tuple[Quality, ...] = ()
    waits: tuple[str, ...] = ()
    usd_per_1000_answers: float | None = None


class Tradeoff(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    usd_per_hour: float | None = None
    options: tuple[Option, ...] = ()
