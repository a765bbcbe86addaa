"""What the console reads of the API's answers about requests; see `shapes`."""

import msgspec

from penstock.console.shapes_content import Kept


class Phases(msgspec.Struct, frozen=True, kw_only=True):
    """When each phase ended, in nanoseconds since the request's first byte; 0: it was never reached."""

    decoded: int = 0
    admitted: int = 0
    dispatched: int = 0
    first_token: int = 0
    last_token: int = 0
    done: int = 0


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one request."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a content rule found."""

    rule: str
    action: str
    where: str
    count: int = 1


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine saw of an answer's quality."""

    scored: int
    perplexity: float | None
    repetition: float | None
    refused: bool


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """Another arm's answer to the same request; `of`: the request that this one is a copy of."""

    arm: str
    of: str = ""
    shown: tuple[str, ...] = ()
    outcome: str = "ok"
    similarity: int = -1


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as its record tells it."""

    id: str
    at: float
    worker: str = ""
    operation: str = "chat"
    tenant: str = ""
    key: str = ""
    user: str = ""
    model: str = ""
    route: str = ""
    experiment: str = ""
    arm: str = ""
    propensity: float = 1.0
    pool: str = ""
    replica: str = ""
    version: str = ""
    digest: str = ""
    stream: bool = False
    status: int = 0
    outcome: str = ""
    error: str = ""
    finish: str = ""
    phases: Phases = Phases()
    usage: Used = Used()
    chunks: int = 0
    cost_nanousd: int = 0
    cache: str = "off"
    attempts: int = 1
    findings: tuple[Found, ...] = ()
    trace: str = ""
    trace_id: str = ""
    generation: int = 0
    hedged: bool = False
    fallback: bool = False
    resumed: int = 0
    escalated: bool = False
    trimmed: int = 0
    quality: Seen | None = None
    content: Kept | None = None
    context: str = ""
    pair: Beside | None = None


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """A page of requests, newest first; `next` continues it, and all later than `looked_to` (Unix seconds) was looked through."""

    requests: tuple[Request, ...] = ()
    next: str | None = None
    looked_to: float | None = None


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """Feedback, an event or a report on a request."""

    kind: str
    at: float
    name: str = ""
    rating: float | None = None
    success: bool | None = None
    value: float | None = None
    text: str = ""  # of former versions, which did not encrypt it
    text_chars: int = 0
    corrected_chars: int = 0


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """A phase of the engine, in milliseconds since the request's first byte."""

    name: str
    begin_ms: float
    end_ms: float
    ms: float


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that was asked in vain, likewise."""

    why: str
    pool: str
    replica: str
    begin_ms: float
    end_ms: float
    ms: float
    error: str = ""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One request, and what was said of it."""

    request: Request
    engine: tuple[Stretch, ...] = ()
    tries: tuple[Tried, ...] = ()
    observations: tuple[Said, ...] = ()
