"""The Snapshot: everything a gateway needs to answer, as one immutable value that control compiles and gateways swap whole.

Secrets in it are hashes or references, never plain text. It is kept on disk as JSON, so that a gateway restarts without control.
"""

from typing import Any, Literal

import msgspec

Unit = Literal["user", "session", "key", "request"]
LedgerDown = Literal["open", "closed"]  # what limits do while the ledger is away: each worker's share, or 503


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key, a tenant or a model may use; None is no limit. A month is 30 days."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    requests_per_month: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    concurrency: int | None = None
    usd_per_minute: float | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key. `hash` is the SHA-256 of its text in hexadecimal."""

    id: str
    hash: str
    tenant: str
    name: str = ""
    roles: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None  # routes it may call; None: all of its tenant's
    limits: Limits = Limits()
    model_limits: dict[str, Limits] = {}  # of what it uses of one route, by the route's name
    expires_at: float | None = None  # Unix seconds


class TenantEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tenant: the border of caches, journals and limits."""

    name: str
    priority: Literal["batch", "standard", "premium"] = "standard"
    weight: float = 1.0
    limits: Limits = Limits()
    model_limits: dict[str, Limits] = {}  # of what it uses of one route, by the route's name
    models: tuple[str, ...] | None = None
    policy: str | None = None


class Replica(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One running engine: `url` is `http://host:port`."""

    id: str
    url: str


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """US dollars for a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0


class HealthPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a replica is left out of its pool, how it comes back, and how much trying again may cost.

    Suspicion (failures, slowness) leaves out at most half of a pool; a replica that takes no connection or fails its
    probe is out whatever the others do.
    """

    failures: int = 5  # in a row: errors of the engine, answers that break off, time limits
    failing_share: float = 0.5  # of the last 20 requests or more, while its peers do at least twice as well
    slow_factor: float = 5.0  # times its peers' typical time to the first byte; 0: never for being slow
    pause_s: float = 0.5  # of the first time; doubled each time
    longest_pause_s: float = 30.0
    slow_start_s: float = 10.0  # until a replica that comes back has its full share
    probe_s: float = 5.0  # between two probes of a replica that is left out or idle; 0: no probes
    probe_path: str = ""  # "": /readyz of engines that Penstock runs, /health of adopted servers
    retry_share: float = 0.2  # retries for each request; ten a second are always allowed
    hedge_share: float = 0.05  # second copies for each request, never more


class QueuePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How those that wait for a pool are served; `max_waiting` and `max_wait_s` of the pool say how many may, and how long.

    Among tenants of a class fair by cost: tokens read and written, each at its price.
    """

    input_cost: float = 1.0  # of one token
    output_cost: float = 2.0
    headroom: float = 1.0  # a tenant may have so many times as many waiting as there are places left
    bypass: int = 16  # of so many places given out while a lower class waits, one is its own
    deadline_s: dict[Literal["batch", "standard", "premium"], float] = {}  # by class, instead of max_wait_s


class QualityPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which share of answers engines look at, and by which patterns (RE2) one is known as a refusal. Engines of our dialect alone can."""

    share: float = 0.0
    refusals: tuple[str, ...] = ()


class Pool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All replicas of one build.

    `digest` and `version` name the weights that answer ("" for adopted servers, whose weights nobody vouches for);
    `model` is what the replicas call the model; None: as the client wrote it.
    """

    name: str
    replicas: tuple[Replica, ...] = ()
    version: str = ""  # NAME:LABEL
    digest: str = ""  # of the version
    build: str = ""  # digest of the build
    model: str | None = None
    price: Price = Price()
    connect_timeout_s: float = 2.0
    first_byte_timeout_s: float = 60.0
    stall_timeout_s: float = 30.0
    answer_timeout_s: float = 900.0  # from sending a request to the last byte of its answer
    max_in_flight: int = 256  # per replica; beyond it requests wait in the pool's queue
    max_waiting: int = 1024
    max_wait_s: float = 10.0
    queue: QueuePolicy = QueuePolicy()
    dialect: Literal["openai", "penstock", "vllm"] = "openai"  # what the engine understands beyond OpenAI's API
    prefix_cache: Literal["separate", "shared"] = "separate"  # whether tenants share what engines remember of prompts
    affinity: Literal["prefix", "session", "off"] = "prefix"
    load_factor: float = 1.25  # of the mean in flight, above which affinity gives way
    health: HealthPolicy = HealthPolicy()
    quality: QualityPolicy = QualityPolicy()


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a route sends its traffic, with which share."""

    pool: str
    weight: float = 1.0


class Cascade(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Asks the pool `first`, and `then` as well where the first answer does not convince.

    An answer convinces if every threshold that is given is met and nothing in it speaks against it. Log-probabilities
    are natural logarithms, of the chosen tokens.
    """

    first: str
    then: str
    min_mean_logprob: float | None = None
    min_token_logprob: float | None = None
    patterns: tuple[str, ...] = ()  # RE2: an answer in which one is found does not convince
    finish: tuple[str, ...] = ("length",)  # nor does one that ended so
    hold_tokens: int = 64  # of a stream: it is decided on its first so many tokens, which are held back until then
    control_share: float = 0.0  # of requests that `then` answers at once, to measure the cascade against
    tools: bool = False  # also requests that offer tools


class Arm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One arm of an experiment: a pool and what it varies. `params` overrides the request's fields."""

    name: str
    pool: str
    weight: float
    params: dict[str, Any] = {}
    system: str | None = None
    policy: str | None = None
    ranges: tuple[tuple[float, float], ...] = ()  # of the buckets in [0, 1) that are its own; none given: by weight
    cascade: Cascade | None = None  # whose `then` is the arm's own pool; its control share does not count


class ContextCell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One context of a bandit: the arms' ranges within it."""

    name: str
    ranges: dict[str, tuple[tuple[float, float], ...]]


class Contexts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a bandit's shares depend on: who asks (cells by tenant, the last one for all others), or how long the prompt is.

    `edges` are estimated tokens (four bytes of the body each), rising, and there is one cell more than edges.
    """

    by: Literal["tenant", "length"]
    cells: tuple[ContextCell, ...]
    edges: tuple[int, ...] = ()


class ShadowPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of the traffic is copied to the treatments after it was answered, and within which bounds of one worker."""

    share: float
    queue: int = 64
    in_flight: int = 4
    deadline_s: float = 60.0
    judge: str = ""  # the pool whose model compares the two answers; "": none does


class InterleavePlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of the traffic the control and a treatment both answer, and how both answers are shown."""

    share: float
    show: Literal["both", "draft"] = "both"
    patience_s: float = 5.0


class Audience(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose requests take part in an experiment: those that meet every condition given; one that is left out is met by all."""

    tenants: tuple[str, ...] | None = None
    headers: dict[str, str] = {}  # names in lower case; all of them must be equal
    metadata: dict[str, str] = {}


class Slice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The units whose bucket, by a hash that has the name in its seed, lies in [low, high)."""

    name: str
    low: float = 0.0
    high: float = 1.0


class ExperimentEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A running experiment as gateways see it.

    Shares lapse to `incumbent` after `expires_at` (Unix seconds), unless the evaluator renews them. With `shadow` or `interleave` the
    incumbent answers everybody, and the arms' ranges are the treatments' alone: whose turn it is to answer beside it.
    """

    name: str
    epoch: int
    seed: str
    unit: Unit
    arms: tuple[Arm, ...]
    incumbent: str
    expires_at: float | None = None
    hash_version: Literal[1, 2] = 2  # of GrowthBook's hash
    contexts: Contexts | None = None
    shadow: ShadowPlan | None = None
    interleave: InterleavePlan | None = None
    audience: Audience | None = (
        None  # None: everybody; who is left out goes where the route leads without the experiment
    )
    namespace: Slice | None = None  # only these units take part
    holdout: Slice | None = None  # these do not
    sticky: Literal["", "unit", "conversation"] = ""  # what keeps its arm when shares change


class SemanticPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which questions count as the same though their words differ: near vectors, and the same facts (`routing.agreement`)."""

    pool: str  # makes the vectors
    threshold: float = 0.9  # least cosine; an embedder's card tells which is right for it
    timeout_s: float = 0.1  # for a vector; the question is asked as if new if it takes longer
    entries: int = 512  # questions kept for each context, by each worker
    same_words: tuple[tuple[str, ...], ...] = ()  # that count as one, beside the built-in groups


class CachePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether whole answers are kept and given again to the same tenant for the same question.

    `semantic` also gives them for questions that mean the same, as far as `semantic` tells.
    """

    mode: Literal["off", "exact", "semantic"] = "off"
    ttl_s: float = 300.0
    sampled: bool = False  # also answers with temperature above 0
    tools: bool = False  # also answers to requests that offer tools
    shared: bool = True  # with other gateways, where they have a Redis
    semantic: SemanticPolicy | None = None


class ChooseRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sends a request that meets every condition given to `pool`; a condition that is left out is met by all.

    A token of the prompt is taken as 4 bytes of its texts. Without a limit of its own a request may answer with any
    number of tokens: it meets `min_answer_tokens` and no `max_answer_tokens`.
    """

    pool: str
    min_prompt_tokens: int | None = None
    max_prompt_tokens: int | None = None
    min_answer_tokens: int | None = None  # of the client's max_tokens
    max_answer_tokens: int | None = None
    min_messages: int | None = None
    max_messages: int | None = None
    tools: bool | None = None
    stream: bool | None = None
    tenants: tuple[str, ...] | None = None
    headers: dict[str, str] = {}  # names in lower case; all of them must be equal
    metadata: dict[str, str] = {}
    last_user: str = ""  # RE2, found anywhere in the last user message


class Trim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Drops a chat's oldest turns until it has at most `budget_tokens` (4 bytes each, as estimated everywhere).

    The system messages (with `keep_system`) and the last `keep_last` turns stay, whatever they come to.
    """

    budget_tokens: int
    keep_system: bool = True
    keep_last: int = 1


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The model name that clients ask for, and what it leads to."""

    name: str
    to: tuple[Target, ...]
    experiment: ExperimentEntry | None = None
    cache: CachePolicy = CachePolicy()
    limits: Limits = Limits()  # of all callers together
    policy: str | None = None
    created: int = 0  # Unix seconds, as /v1/models tells
    attempts: int = 3  # in one pool, the first included
    fallback: tuple[str, ...] = ()  # pools to ask in this order where the one that was chosen cannot answer
    hedge_after_s: float | None = None  # then a second replica is asked too, and the first to answer wins
    choose: tuple[ChooseRule, ...] = ()  # the first that fits decides; where none does, experiment, cascade or `to`
    cascade: Cascade | None = None
    trim: Trim | None = None
    max_tokens: int | None = None  # of an answer: the client's own is lowered to it, and it is set where there is none
    default_max_tokens: int = (
        256  # of an answer whose request names no limit, where its caller's tokens or money are limited
    )
    coalesce: bool = False  # equal requests of one tenant that run at the same time share one answer
    resume: bool = False  # a stream that breaks off is gone on with by another replica of its pool
    tenant: str = ""  # for this tenant alone, and listed for nobody; "": for all


Detectable = Literal["payment_card", "email", "phone", "iban", "secret", "number"]


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One content rule. `detect` is a built-in detector, or `words` / `patterns` (RE2) list what to find."""

    name: str
    detect: Literal[Detectable, "words", "pattern"] = "words"
    words: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    on: tuple[Literal["input", "output"], ...] = ("input", "output")
    do: Literal["block", "mask", "flag"] = "block"


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a request and which content rules apply."""

    name: str
    capture: Literal["none", "masked", "full"] = "none"
    capture_share: float = 1.0  # of the requests
    capture_mask: tuple[Detectable, ...] = ("payment_card", "email", "phone", "iban", "secret")
    capture_chars: int = 65536  # characters of one request's texts; what is beyond is left out, the oldest turns first
    audit: Literal["buffered", "strict"] = "buffered"
    ledger_down: LedgerDown | None = None  # None: as the process is set
    rules: tuple[Rule, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole of it. `generation` only grows; `environment` names which environment's pointers were compiled."""

    generation: int
    compiled_at: float = 0.0
    environment: str = "production"
    keys: tuple[KeyEntry, ...] = ()
    tenants: tuple[TenantEntry, ...] = ()
    routes: tuple[Route, ...] = ()
    pools: tuple[Pool, ...] = ()
    policies: tuple[Policy, ...] = ()


class SnapshotDelta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From generation `base` to `generation`: entries that are new or changed, and the names that are gone."""

    base: int
    generation: int
    compiled_at: float = 0.0
    keys: tuple[KeyEntry, ...] = ()
    tenants: tuple[TenantEntry, ...] = ()
    routes: tuple[Route, ...] = ()
    pools: tuple[Pool, ...] = ()
    policies: tuple[Policy, ...] = ()
    gone: dict[str, tuple[str, ...]] = {}  # "keys" -> ids, "routes" -> names, ...
    checksum: str = ""  # of the Snapshot that it leads to, by core.checksum; "": none


TABLES = (("keys", "id"), ("tenants", "name"), ("routes", "name"), ("pools", "name"), ("policies", "name"))


def difference(old: Snapshot, new: Snapshot) -> SnapshotDelta:
    """The delta that turns `old` into `new`."""
    changed: dict[str, tuple[msgspec.Struct, ...]] = {}
    gone: dict[str, tuple[str, ...]] = {}
    for table, key in TABLES:
        before = {getattr(e, key): e for e in getattr(old, table)}
        after = {getattr(e, key): e for e in getattr(new, table)}
        changed[table] = tuple(e for k, e in after.items() if before.get(k) != e)
        if missing := tuple(k for k in before if k not in after):
            gone[table] = missing
    return SnapshotDelta(
        base=old.generation,
        generation=new.generation,
        compiled_at=new.compiled_at,
        gone=gone,
        **changed,  # type: ignore[arg-type]
    )


def patched(old: Snapshot, delta: SnapshotDelta) -> Snapshot:
    """`old` with `delta` applied.

    Raises:
        ValueError: if the delta starts from another generation, or leads to an older one.
    """
    if delta.base != old.generation:
        raise ValueError(f"a delta from generation {delta.base} does not fit generation {old.generation}")
    if delta.generation <= delta.base:
        raise ValueError(f"a delta from generation {delta.base} cannot lead to generation {delta.generation}")
    tables: dict[str, tuple[msgspec.Struct, ...]] = {}
    for table, key in TABLES:
        entries = {getattr(e, key): e for e in getattr(old, table)}
        entries.update({getattr(e, key): e for e in getattr(delta, table)})
        for name in delta.gone.get(table, ()):
            entries.pop(name, None)
        tables[table] = tuple(entries.values())
    return Snapshot(
        generation=delta.generation,
        compiled_at=delta.compiled_at,
        environment=old.environment,
        **tables,  # type: ignore[arg-type]
    )
