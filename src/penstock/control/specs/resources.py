"""The specs of resources, as `penstock apply` and the API take them: strict, unknown fields refused by their path."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from penstock.control.specs.canary import CanarySpec
from penstock.control.specs.gates import GatesSpec
from penstock.control.specs.rollback import AutoRollbackSpec
from penstock.core.errors import BadRequest
from penstock.core.references import NAME, parse_reference
from penstock.net.origin import parse_origin

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=96)]
Precision = Literal["int8", "int4", "fp16", "fp32"]
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9.])?|[0-9a-f:.]+", re.IGNORECASE)
ENVIRONMENTS = ("dev", "staging", "production")


def _is_address(url: str) -> bool:
    """Whether gateways can dial `url`: they leave out a replica whose address they cannot read."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        origin, parts = parse_origin(url), urlsplit(url)
    except BadRequest:
        return False
    return parts.scheme == "http" and origin.port > 0 and not origin.base and _HOST.fullmatch(origin.host) is not None


def _checked_reference(text: str) -> str:
    try:
        parse_reference(text)
    except BadRequest as error:
        raise ValueError(error.message) from None
    return text


ReferenceText = Annotated[str, AfterValidator(_checked_reference)]  # NAME:LABEL, NAME@ENVIRONMENT or NAME@sha256:...


class Spec(BaseModel):
    """The base of every spec and body."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class LimitsSpec(Spec):
    """What a key, a tenant or a model may use; what is left out is not limited. Windows slide: a month is any 30 days."""

    requests_per_minute: int | None = Field(default=None, ge=0, le=10**12)
    requests_per_day: int | None = Field(default=None, ge=0, le=10**12)
    requests_per_month: int | None = Field(default=None, ge=0, le=10**12)
    tokens_per_minute: int | None = Field(default=None, ge=0, le=10**12)
    tokens_per_day: int | None = Field(default=None, ge=0, le=10**12)
    tokens_per_month: int | None = Field(default=None, ge=0, le=10**12)
    concurrency: int | None = Field(default=None, ge=0, le=10**9)
    usd_per_minute: float | None = Field(default=None, ge=0, le=4e6)
    usd_per_day: float | None = Field(default=None, ge=0, le=4e6)
    usd_per_month: float | None = Field(default=None, ge=0, le=4e6)


ModelName = Annotated[str, Field(pattern=f"^{NAME.pattern}(@{NAME.pattern})?$", max_length=193)]
ModelLimits = Annotated[
    dict[ModelName, LimitsSpec],
    Field(max_length=1000, description="Limits on what it uses of one model, by the route's name, beside `limits`."),
]


class TenantSpec(Spec):
    """One tenant: the border of caches, journals and limits."""

    priority: Literal["batch", "standard", "premium"] = "standard"
    weight: float = Field(default=1.0, gt=0, le=1000)
    limits: LimitsSpec = LimitsSpec()
    model_limits: ModelLimits = {}
    models: list[str] | None = Field(default=None, description="Routes it may call; left out: all.")
    policy: Name | None = None


class PriceSpec(Spec):
    """US dollars for a million tokens."""

    prompt: float = Field(default=0.0, ge=0, le=1e6)
    completion: float = Field(default=0.0, ge=0, le=1e6)


class HealthSpec(Spec):
    """When a replica is left out of its pool, how it comes back, and how much trying again may cost."""

    failures: int = Field(default=5, ge=1, le=1000, description="Failures in a row that leave a replica out.")
    failing_share: float = Field(
        default=0.5, gt=0, le=1, description="Share of failures that does, if its peers do better."
    )
    slow_factor: float = Field(
        default=5.0,
        ge=0,
        le=1000,
        description="Times its peers' typical time to the first byte; 0: never for being slow.",
    )
    pause_s: float = Field(
        default=0.5, gt=0, le=3600, description="Seconds left out the first time; doubled each time."
    )
    longest_pause_s: float = Field(default=30.0, gt=0, le=86400)
    slow_start_s: float = Field(default=10.0, ge=0, le=3600, description="Seconds until it has its full share again.")
    probe_s: float = Field(
        default=5.0, ge=0, le=3600, description="Seconds between probes of what is left out or idle; 0: none."
    )
    probe_path: str = Field(
        default="",
        max_length=256,
        pattern=r"^(/[!-~]*)?$",
        description="Left out: /readyz, or /health of adopted servers.",
    )
    retry_share: float = Field(default=0.2, ge=0, le=1, description="Retries for each request, beside ten a second.")
    hedge_share: float = Field(default=0.05, ge=0, le=1, description="Second copies for each request.")


class QueueSpec(Spec):
    """How those that wait for a pool are served: classes first, then tenants by the tokens that they were served."""

    input_cost: float = Field(default=1.0, ge=0, le=1000, description="What a token that is read counts.")
    output_cost: float = Field(default=2.0, gt=0, le=1000, description="What a token that is written counts.")
    headroom: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="A tenant may have so many times as many waiting as there are places left in the queue.",
    )
    bypass: int = Field(
        default=16, ge=2, le=1000, description="Of so many places given out while a lower class waits, one is its own."
    )
    deadline_s: dict[Literal["batch", "standard", "premium"], Annotated[float, Field(ge=0, le=3600)]] = Field(
        default={}, description="Seconds that a request of this class may wait; left out: max_wait_s."
    )


Refusals = Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=16)]


class QualitySpec(Spec):
    """What engines tell of their answers' quality: perplexity, repetition, refusals. Engines of Penstock's dialect alone can."""

    share: float = Field(default=0.1, ge=0, le=1, description="Of the requests; each costs the engine about 5 %.")
    refusals: Refusals | None = Field(
        default=None,
        description="RE2: an answer in which one is found is a refusal. Left out: `refusals` in the version's metadata.",
    )


class PoolSpec(Spec):
    """Servers that run already (`adopt`), or replicas of a version that Penstock keeps running (`build`)."""

    adopt: list[str] | None = Field(
        default=None, description="http://HOST:PORT of each server.", min_length=1, max_length=256
    )
    build: ReferenceText | None = Field(default=None, description="NAME:LABEL, NAME@ENVIRONMENT or NAME@sha256:...")
    precision: Precision = "int8"
    replicas: int = Field(default=1, ge=1, le=64)
    model: str | None = Field(
        default=None, description="What adopted servers call the model; left out: as the client wrote it."
    )
    price: PriceSpec | None = Field(default=None, description="Left out: what the version's metadata says.")
    connect_timeout_s: float = Field(default=2.0, gt=0, le=60)
    first_byte_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    stall_timeout_s: float = Field(default=30.0, gt=0, le=3600)
    answer_timeout_s: float = Field(default=900.0, gt=0, le=86400)
    max_in_flight: int = Field(default=256, ge=1, le=100000)
    max_waiting: int = Field(default=1024, ge=0, le=1000000)
    max_wait_s: float = Field(default=10.0, ge=0, le=3600)
    queue: QueueSpec = QueueSpec()
    affinity: Literal["prefix", "session", "off"] = "prefix"
    load_factor: float = Field(default=1.25, ge=1, le=100)
    health: HealthSpec = HealthSpec()
    quality: QualitySpec = QualitySpec()
    dialect: Literal["openai", "penstock", "vllm"] | None = Field(
        default=None,
        description="What adopted servers understand beyond OpenAI's API; left out: nothing. Of `build`: Penstock's own.",
    )
    prefix_cache: Literal["separate", "shared"] = Field(
        default="separate",
        description="What engines remember of prompts: for each tenant alone, or not at all where they cannot tell tenants "
        "apart; or for all of them, who may then learn of one another's prompts by timing.",
    )

    @field_validator("adopt")
    @classmethod
    def _urls(cls, urls: list[str] | None) -> list[str] | None:
        for url in urls or ():
            if not _is_address(url):
                raise ValueError(f"{url!r} is not http://HOST:PORT")
            if "@" in url:
                raise ValueError(f"{url.rpartition('@')[2]!r}: a URL must not hold a user or password")
        return [url.rstrip("/") for url in urls] if urls is not None else None

    @model_validator(mode="after")
    def _one_kind(self) -> "PoolSpec":
        if (self.adopt is None) == (self.build is None):
            raise ValueError("give either 'adopt' (servers that run already) or 'build' (a version to run)")
        if self.build is not None and self.dialect is not None:
            raise ValueError("'dialect' goes with 'adopt'")
        return self


class PlaceSpec(Spec):
    """Where a request may go: a pool, or what an environment runs of a model."""

    pool: Name | None = None
    model: Name | None = None
    env: Name | None = Field(default=None, description="With `model`; left out: the environment that gateways serve.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.pool is None) == (self.model is None):
            raise ValueError("give either 'pool' or 'model'")
        if self.env is not None and self.model is None:
            raise ValueError("'env' goes with 'model'")
        return self


class TargetSpec(PlaceSpec):
    """A place, and which share of a route's traffic goes there."""

    weight: float = Field(default=1.0, ge=0, le=1e6)


Tokens = Annotated[int, Field(ge=0, le=10**7)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]
Exact = dict[Annotated[str, Field(min_length=1, max_length=256)], Annotated[str, Field(max_length=1024)]]


class ChooseSpec(PlaceSpec):
    """A place, and what a request must be like to go there: all that is given must hold."""

    min_prompt_tokens: Tokens | None = Field(default=None, description="Estimated: a token for 4 bytes of its texts.")
    max_prompt_tokens: Tokens | None = None
    min_answer_tokens: Tokens | None = Field(default=None, description="Of the client's max_tokens; none is the most.")
    max_answer_tokens: Tokens | None = None
    min_messages: Tokens | None = None
    max_messages: Tokens | None = None
    tools: bool | None = Field(default=None, description="Whether it offers tools.")
    stream: bool | None = None
    tenants: list[Name] | None = Field(default=None, min_length=1, max_length=1000)
    headers: Exact = Field(default={}, max_length=16, description="Header fields and their whole values.")
    metadata: Exact = Field(
        default={}, max_length=16, description="Members of the body's `metadata`, and their values."
    )
    last_user: Pattern | None = Field(default=None, description="RE2, found in the last user message.")


class CascadeSpec(Spec):
    """A small model that is asked first, and a larger one for what it does not answer with confidence."""

    first: PlaceSpec
    then: PlaceSpec
    min_mean_logprob: float | None = Field(default=None, ge=-100, le=0)
    min_token_logprob: float | None = Field(default=None, ge=-100, le=0)
    patterns: list[Pattern] = Field(default=[], max_length=100)
    finish: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default=["length"], max_length=8)
    hold_tokens: int = Field(default=64, ge=1, le=4096)
    control_share: float = Field(default=0.0, ge=0, lt=1)
    tools: bool = False

    @model_validator(mode="after")
    def _judges(self) -> Self:
        if self.min_mean_logprob is None and self.min_token_logprob is None and not self.patterns and not self.finish:
            raise ValueError(
                "say what does not convince: 'min_mean_logprob', 'min_token_logprob', 'patterns' or 'finish'"
            )
        return self


class TrimSpec(Spec):
    """How much of a long chat is sent on: whole turns, the newest."""

    budget_tokens: int = Field(ge=1, le=10**7)
    keep_system: bool = True
    keep_last: int = Field(default=1, ge=1, le=1000)


class SemanticSpec(PlaceSpec):
    """Which questions count as the same though their words differ, and what makes the vectors that tell."""

    threshold: float = Field(
        default=0.9, ge=0.5, le=1, description="Least cosine; an embedder's card tells which is right for it."
    )
    timeout_s: float = Field(
        default=0.1, gt=0, le=10, description="For a vector; then the question is asked as if new."
    )
    entries: int = Field(default=512, ge=1, le=4096, description="Questions kept for each context, by each worker.")
    same_words: list[
        Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=2, max_length=32)]
    ] = Field(default=[], max_length=256, description="Groups of words that count as one.")


class CacheSpec(Spec):
    """Whether whole answers are kept and given again to the same tenant for the same question."""

    mode: Literal["off", "exact", "semantic"] = "off"
    ttl_s: float = Field(default=300.0, gt=0, le=30 * 86400)
    sampled: bool = False
    tools: bool = False
    shared: bool = Field(default=True, description="With other gateways, where they have a Redis.")
    semantic: SemanticSpec | None = Field(default=None, description="With mode `semantic`.")

    @model_validator(mode="after")
    def _semantic_goes_with_its_mode(self) -> Self:
        if (self.mode == "semantic") != (self.semantic is not None):
            raise ValueError("mode 'semantic' and the field 'semantic' go together")
        return self


class RouteSpec(Spec):
    """The model name that clients ask for, and what it leads to."""

    to: list[TargetSpec] = Field(min_length=1, max_length=64)
    cache: CacheSpec = CacheSpec()
    limits: LimitsSpec = Field(default=LimitsSpec(), description="Of all its callers together.")
    policy: Name | None = Field(default=None, description="Left out: the policy named 'default', if there is one.")
    attempts: int = Field(default=3, ge=1, le=10, description="Replicas of one pool that are tried.")
    fallback: list[Annotated[str, Field(pattern=f"^{NAME.pattern}(@{NAME.pattern})?$", max_length=193)]] = Field(
        default=[],
        max_length=8,
        description="A pool, or MODEL@ENVIRONMENT: asked in turn where the chosen one cannot answer.",
    )
    hedge_after_s: float | None = Field(
        default=None, gt=0, le=3600, description="Then a second replica is asked too; the first to answer wins."
    )

    choose: list[ChooseSpec] = Field(default=[], max_length=100)
    cascade: CascadeSpec | None = None
    trim: TrimSpec | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=10**7)
    default_max_tokens: int = Field(
        default=256,
        ge=1,
        le=10**7,
        description="Of an answer whose request names no limit, where its caller's tokens or money are limited.",
    )
    coalesce: bool = False
    resume: bool = Field(
        default=False, description="A stream that breaks off is gone on with by another replica of its pool."
    )

    def places(self) -> list[tuple[str, PlaceSpec]]:
        """Every place that it leads to, each with its path within the spec."""
        found: list[tuple[str, PlaceSpec]] = [(f"to.{i}", target) for i, target in enumerate(self.to)]
        found += [(f"choose.{i}", rule) for i, rule in enumerate(self.choose)]
        if self.cascade is not None:
            found += [("cascade.first", self.cascade.first), ("cascade.then", self.cascade.then)]
        return found

    @model_validator(mode="after")
    def _some_weight(self) -> "RouteSpec":
        if not any(target.weight > 0 for target in self.to):
            raise ValueError("at least one weight must be above 0")
        return self


class EnvironmentSpec(Spec):
    """One environment. `dev`, `staging` and `production` are there from the first start."""

    description: str = ""
    canary: CanarySpec = Field(default=CanarySpec(), description="How new versions are tried out here.")
    auto_rollback: AutoRollbackSpec | None = Field(
        default=None, description="What alerts may do here; left out: nothing."
    )
    gates: GatesSpec | None = Field(
        default=None, description="What a version must show before it runs here; left out: nothing."
    )
    pickles: Literal["refuse", "tensors"] = Field(
        default="refuse",
        description="`tensors`: versions may hold `pytorch_model*.bin` whose scan found nothing but what tensors need.",
    )
    serve: bool = Field(
        False,
        description="Also run what is deployed here, reached as NAME@ENVIRONMENT (the gateways' own always runs).",
    )


class KeySpec(Spec):
    """One key."""

    tenant: Name | None = Field(default=None, description="Left out: a key for the control API alone.")
    principal: Name | None = Field(default=None, description="Whose key it is; left out: the key stands for itself.")
    roles: list[Literal["admin", "operator", "developer", "analyst", "auditor"]] = []
    models: list[str] | None = Field(default=None, description="Routes it may call; left out: all of its tenant's.")
    limits: LimitsSpec = LimitsSpec()
    model_limits: ModelLimits = {}
    expires_at: float | None = Field(default=None, ge=0, le=1e11, description="Unix seconds.")


class Document(Spec):
    """One document of `penstock apply`, and the body of POST and PUT of a resource."""

    kind: str | None = None
    name: Name
    spec: dict[str, object] = {}
