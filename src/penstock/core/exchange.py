"""What a request leaves behind: one `Exchange`; and what people say of it later: `Observation`s. Both are journalled.

The journal holds a tagged union of `Opened`, `Exchange` and `Observation` in msgpack. Times are Unix seconds (`at`) and
nanoseconds since the request's first byte (`Phases`). Fields are only ever added, with defaults: old records stay readable.
"""

import math
from typing import Literal

import msgspec

from penstock.core.engine_phases import EnginePhases, Placed

# crashed: what wrote the answer broke off in the middle, its gateway (`error` is `crashed`) or its engine (`error` says how it looked from the gateway);
# truncated: the gateway ended an answer that had begun, because of time or of what the engine sent.
Outcome = Literal["ok", "refused", "error", "cancelled", "truncated", "crashed"]


# OpenTelemetry's names: of what is done (`gen_ai.operation.name`), by `Exchange.operation`, and of who does it (`gen_ai.provider.name`).
OPERATIONS = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings", "responses": "chat"}
PROVIDER = "penstock"
FROM_CACHE = frozenset({"hit", "semantic"})  # values of `Exchange.cache` that say that no model was asked


class Phases(msgspec.Struct, frozen=True, array_like=True):
    """When each phase ended, in nanoseconds since the first byte of the request was read; 0: it was never reached."""

    decoded: int = 0
    admitted: int = 0  # authenticated, counted, screened, reserved, out of the queue
    dispatched: int = 0  # sent to the replica that answered
    first_token: int = 0  # first byte of the answer's body
    last_token: int = 0  # last byte of it
    done: int = 0  # settled, about to be recorded

    def lengths(self) -> tuple[int, int, int, int, int, int]:
        """How long each took, in the order of the fields; 0 for one that was not reached. Together they are `done`."""
        decoded = self.decoded
        admitted = max(decoded, self.admitted)
        dispatched = max(admitted, self.dispatched)
        first = max(dispatched, self.first_token)
        last = max(first, self.last_token)
        return (
            decoded,
            admitted - decoded,
            dispatched - admitted,
            first - dispatched,
            last - first,
            max(last, self.done) - last,
        )


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens, as the engine counted them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0  # of the prompt, found in the engine's prefix cache


class Quality(msgspec.Struct, frozen=True, array_like=True):
    """What the engine saw of an answer that it looked at: of a sampled share, and of all its choices together."""

    scored: int = 0  # tokens whose log-probability is known, the one that ends an answer included
    logprob: float = 0.0  # the sum of the natural logarithms of their probabilities under the model
    trigrams: int = 0  # runs of three tokens
    repeated: int = 0  # of these, the ones that had occurred in the same choice before
    refused: bool = False  # the first choice is a refusal, by the patterns declared for the model

    @property
    def perplexity(self) -> float | None:
        """Exp of the mean negative log-probability of a token; None if none is known."""
        return math.exp(min(700.0, -self.logprob / self.scored)) if self.scored else None

    @property
    def repetition(self) -> float | None:
        """Share of the runs of three tokens that had occurred before (1 - distinct-3); None of answers with fewer than three tokens."""
        return self.repeated / self.trigrams if self.trigrams else None


class Noticed(msgspec.Struct, frozen=True, array_like=True):
    """What the gateway noticed of the last thing that the user said: of a sampled share, and nothing that it can be read from."""

    characters: int = 0
    language: str = ""  # as far as script and function words tell
    words: int = 0  # which of 32 buckets its words are hashed into, as bits


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """What a guard rule found: never the content itself."""

    rule: str
    action: str  # block, mask, flag
    where: str  # input, output
    count: int = 1


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What was asked and answered, encrypted; `journal.content` seals and opens it."""

    key: str  # id of the key of its subject, 32 hexadecimal digits
    sealed: bytes
    masked: bool = False  # personal data was replaced before
    cut: bool = False  # it was more than the policy keeps


class Try(msgspec.Struct, frozen=True, array_like=True):
    """A replica that was asked, and whose answer the client was not given, or not to its end. Times are as in `Phases`."""

    how: str  # failed; hedge: another one was quicker; broken: another one went on with its stream; unconvincing: a cascade's first model
    pool: str
    replica: str
    begin: int
    end: int
    error: str = ""  # error code, or the status that it answered with


class Pair(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The other arm's answer to the same request.

    Of a shadow's copy: what the user got (`of` is that exchange). Of an interleaved request: what the treatment answered beside the
    control; `shown` tells whose each choice, or each drafted item, is.
    """

    arm: str
    of: str = ""
    shown: tuple[str, ...] = ()
    digest: str = ""  # of the version that gave it
    outcome: Outcome = "ok"
    finish: str = ""
    latency_ns: int = 0
    first_ns: int = 0  # to the first byte; 0: no stream, or none came
    usage: Usage = Usage()
    cost_nanousd: int = 0
    similarity: int = -1  # of the two answers, in millionths; -1: not compared
    judged: Literal["", "first", "other", "tie"] = ""  # which of the two the judge found better; `other` is this one


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="exchange"):
    """One request and what became of it."""

    id: str
    at: float
    worker: str = ""
    operation: Literal["chat", "completions", "embeddings", "responses"] = "chat"
    tenant: str = ""
    key: str = ""  # id of the key, never its text
    user: str = ""  # keyed hash of the request's `user`
    session: str = ""
    model: str = ""  # as asked for
    route: str = ""
    experiment: str = ""
    arm: str = ""
    epoch: int = 0
    propensity: float = 1.0
    unit: str = ""  # the unit of assignment, hashed
    pool: str = ""
    replica: str = ""
    version: str = ""  # NAME:LABEL
    digest: str = ""  # of the version that answered
    stream: bool = False
    status: int = 0  # HTTP status that the client was sent; 0: it left before
    outcome: Outcome = "ok"
    error: str = ""  # error code
    finish: str = ""  # finish reason of the first choice
    phases: Phases = Phases()
    usage: Usage = Usage()
    chunks: int = 0
    cost_nanousd: int = 0
    cache: Literal["off", "miss", "hit", "semantic", "coalesced"] = "off"
    attempts: int = 1
    hedged: bool = False  # a second replica was asked too, because the first was slow to begin
    fallback: bool = False  # a pool that the route falls back to was asked
    resumed: int = 0  # how often another replica went on with the stream
    findings: tuple[Finding, ...] = ()
    trace: str = ""  # W3C traceparent as the engine was sent it: the caller's trace, the gateway's span
    generation: int = 0  # of the Snapshot that decided
    escalated: bool = False  # the first model of a cascade did not convince; `usage` and cost are of both
    tried: Usage = Usage()  # of `usage`, what the first one used
    trimmed: int = 0  # turns of the conversation that were left out
    parent: str = ""  # the caller's span within `trace`, 16 hexadecimal digits
    noticed: Noticed | None = None  # None: the gateway did not look at it
    context: str = ""  # of a bandit with contexts: whose shares gave the propensity; @audience, @holdout or @namespace: why it took no part
    pair: Pair | None = None  # another arm answered the same request
    quality: Quality | None = None  # None: the engine was not asked to look at it
    content: Content | None = None  # None: the policy keeps none, or the request was not drawn
    engine: EnginePhases | None = None  # None: the engine did not tell; of a resumed stream, the last one tells
    tries: tuple[Try, ...] = ()  # replicas that were asked in vain, in the order in which that was known

    def engine_placed(self) -> tuple[Placed, ...]:
        """The engine's phases within the gateway's; none of an answer that did not come to its end."""
        told, phases = self.engine, self.phases
        if told is None or not (phases.dispatched and phases.last_token):
            return ()
        begin = max(phases.decoded, phases.admitted, phases.dispatched)
        end = max(phases.first_token, phases.last_token)
        return told.placed(begin, phases.first_token, end, resumed=self.resumed > 0)


class Opened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="opened"):
    """Written when a stream's first byte goes out; without an `Exchange` of the same id after it, the stream crashed.

    It carries what is known by then, so that the closing record can be made from it.
    """

    exchange: Exchange


class Observation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="observation"):
    """Feedback, an event or a report, told after the fact through the gateway."""

    id: str  # the caller's idempotency id
    at: float  # when it happened, Unix seconds
    received: float
    kind: Literal["feedback", "event", "report", "preference"]
    tenant: str
    key: str = ""
    request: str = ""  # id of the exchange it is about
    user: str = ""  # keyed hash
    name: str = ""  # of an event; reason of a report
    rating: float | None = None
    success: bool | None = None
    value: float | None = None
    text: str = ""
    corrected: str = ""
    consent: bool = False
    evaluator: str = ""  # which one has told this; clients cannot say so
    content: Content | None = (
        None  # the texts, sealed: `text` and `corrected` are empty then; `journal.telling` opens them
    )
    text_chars: int = 0  # how long these are
    corrected_chars: int = 0


Record = Exchange | Opened | Observation
