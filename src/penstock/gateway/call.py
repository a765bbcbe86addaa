"""One request on its way: what every step reads, and what it adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from mypy_extensions import mypyc_attr

from penstock.core.engine_phases import EnginePhases
from penstock.core.errors import PenstockError
from penstock.core.exchange import Content, Finding, Noticed, Outcome, Pair, Quality, Try, Usage
from penstock.net.request import Request
from penstock.wire.envelope import Envelope

if TYPE_CHECKING:
    from penstock.access.leases import Holder, Reservation
    from penstock.gateway.beside import Beside
    from penstock.gateway.cascade import Draft
    from penstock.gateway.entry import Entry
    from penstock.gateway.gateway import Gateway
    from penstock.gateway.index import Caller, CascadeEntry, Index, Leg, RouteEntry, Rules
    from penstock.gateway.pools import Place, PoolState
    from penstock.gateway.responses import ResponsesReply
    from penstock.gateway.semantic import Sought
    from penstock.net.client import Response
    from penstock.net.reply import Reply
    from penstock.routing.member import Member


Operation = Literal["chat", "completions", "embeddings", "responses"]


@mypyc_attr(acyclic=True)  # nothing that it holds leads back to it: the garbage collector need not look
class Call:
    """Mutable, owned by the one task that walks it. Each field is set by the step that it is listed under."""

    gateway: Gateway
    index: Index  # the one Snapshot that decides all of this request
    request: Request
    reply: Reply | ResponsesReply
    id: str
    at: float
    operation: Operation
    path: bytes
    started_ns: int
    body: bytes  # as it will be sent on
    envelope: Envelope
    # decode
    stream: bool = False
    decoded_ns: int = 0
    trace: str = ""
    parent: str = ""  # the caller's span
    onward: bytes = b""  # header fields of the client that the engine gets
    # authenticate, count
    caller: Caller | None = None
    holder: Holder | None = None  # the limits that it draws on
    # resolve
    route: RouteEntry | None = None
    leg: Leg | None = None
    rules: Rules | None = None
    pool: PoolState | None = None
    arm: str = ""
    epoch: int = 0
    propensity: float = 1.0
    context: str = ""  # of a bandit's shares
    unit: str = ""
    user: str = ""
    session: str = ""
    digest: str = ""
    cascade: CascadeEntry | None = None  # which may ask a second model; None once it has
    shadow: Beside | None = None  # who answers a copy of it afterwards
    beside: Beside | None = None  # who answers it too
    pair: Pair | None = None  # what that one answered
    captured: bool = False  # its content is to be kept
    # screen
    findings: tuple[Finding, ...] = ()
    # amend
    trimmed: int = 0  # turns left out
    spared: int = 0  # tokens of theirs, as estimated
    notes: bytes = b""  # further fields of the reply's head
    noticing: bool = False  # it is one of those in which drift is looked for
    examined: bool = False  # the engine is asked to look at its answer's quality
    # recall
    cache: Literal["off", "miss", "hit", "semantic", "coalesced"] = "off"
    cache_key: bytes = b""
    recalled: Entry | None = None
    quiet: bool = False  # the reply is nobody's own: those who get it tell of it
    kept: list[bytes] | None = None  # the answer as it goes out, if the cache or who keeps content wants it
    keeps: bool = False  # the cache may have it
    seeking: bool = False  # others may have kept the answer, or one to a like question
    sought: Sought | None = None  # where that one would be
    # reserve
    reservation: Reservation | None = None
    # admit, dispatch
    place: Place | None = None  # that is taken in the pool
    admitted_ns: int = 0
    member: Member | None = None  # the replica that counts this request as in flight
    dispatched_ns: int = 0
    response: Response | None = None
    replica: str = ""
    attempts: int = 0
    tries: tuple[Try, ...] = ()  # those in vain
    redone: int = 0  # attempts whose answer broke off before the client had any of it
    setback: PenstockError | None = None  # why the last of them did
    hedged: bool = False  # a second replica was asked too
    fallback: bool = False  # a pool that the route falls back to was asked
    fallen: int = 0  # how many of the route's fallbacks have been gone through
    plain: bytes = (
        b""  # the body, as the content rules let it pass, before it was amended for one pool, if it may be for another
    )
    avoid: tuple[str, ...] = ()  # replicas that it is not sent to
    resume: bytes = b""  # the header field that asks the engine to make its stream fit to be resumed
    resumed: int = 0  # how often another replica went on with the stream
    draft: Draft | None = None  # of a cascade's first model
    escalated: bool = False  # the cascade's first answer did not convince
    tried: Usage | None = None  # what that one used
    spent: int = 0  # and cost, nano-dollars
    # relay
    first_ns: int = 0
    last_ns: int = 0
    chunks: int = 0
    usage: Usage | None = None
    usage_event: bytes = b""  # the chunk that tells it
    finish: str = ""
    quality: Quality | None = None
    engine: EnginePhases | None = None  # as it told
    noticed: Noticed | None = None
    content: Content | None = None  # sealed
    tail: bytes = b""  # the reply's last bytes, which wait for the record
    broken: bool = False  # a stream that must not end as if it were whole
    status: int = 0
    outcome: Outcome = "ok"
    error: str = ""

    def __init__(
        self,
        gateway: Gateway,
        request: Request,
        reply: Reply | ResponsesReply,
        operation: Operation,
        path: bytes,
        at: float,
    ) -> None:
        self.gateway = gateway
        self.index = gateway.index
        self.request = request
        self.reply = reply
        self.id = gateway.new_id(at)
        self.at = at
        self.operation = operation
        self.path = path
        self.started_ns = request.received_ns
        self.body = request.body
        self.envelope = gateway.no_envelope

    def twin(self) -> Call:
        """Another one in the same state."""
        made = Call(self.gateway, self.request, self.reply, self.operation, self.path, self.at)
        for name in _FIELDS:
            setattr(made, name, getattr(self, name))
        return made


# A class that is compiled lists its fields in one way, one that is interpreted in another.
_FIELDS: Final[tuple[str, ...]] = getattr(Call, "__mypyc_attrs__", ()) or tuple(vars(Call)["__annotations__"])
