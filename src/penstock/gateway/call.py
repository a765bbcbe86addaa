"""One request on its way: what every step reads, and what it adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from penstock.core.errors import PenstockError
from penstock.core.exchange import Finding, Outcome, Usage
from penstock.net.request import Request
from penstock.wire.envelope import Envelope

if TYPE_CHECKING:
    from penstock.access.leases import Reservation
    from penstock.gateway.cache import Entry
    from penstock.gateway.gateway import Gateway
    from penstock.gateway.index import Caller, Index, Leg, RouteEntry, Rules
    from penstock.gateway.pools import PoolState
    from penstock.gateway.ports import Standing
    from penstock.net.client import Response
    from penstock.net.reply import Reply


class Call:
    """Mutable, owned by the one task that walks it. Each attribute is set by the step that it is listed under."""

    __slots__ = (
        "admitted", "admitted_ns", "arm", "at", "attempts", "body", "broken", "cache", "cache_key", "caller", "chunks",
        "decoded_ns", "digest", "dispatched_ns", "envelope", "epoch", "error", "estimate", "findings", "finish", "first_ns",
        "gateway", "holding", "id", "index", "kept", "last_ns", "leg", "operation", "outcome", "path", "pool", "propensity", "recalled",
        "replica", "reply", "request", "reservation", "response", "route", "rules", "session", "standing", "started_ns",
        "status", "stream", "tail", "trace", "unit", "usage", "usage_event", "user",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        request: Request,
        reply: Reply,
        *,
        id: str,  # noqa: A002 - the request's id
        at: float,
        operation: Literal["chat", "completions"],
        path: bytes,
    ) -> None:
        self.gateway = gateway
        self.index: Index = gateway.index  # the one Snapshot that decides all of this request
        self.request = request
        self.reply = reply
        self.id = id
        self.at = at
        self.operation = operation
        self.path = path
        self.started_ns = request.received_ns
        self.body = request.body  # as it will be sent on
        # decode
        self.envelope: Envelope = gateway.no_envelope
        self.stream = False
        self.decoded_ns = 0
        self.trace = ""
        # authenticate, count
        self.caller: Caller | None = None
        self.standing: Standing | None = None
        # resolve
        self.route: RouteEntry | None = None
        self.leg: Leg | None = None
        self.rules: Rules | None = None
        self.arm = ""
        self.epoch = 0
        self.propensity = 1.0
        self.unit = ""
        self.user = ""
        self.session = ""
        # screen
        self.findings: tuple[Finding, ...] = ()
        # recall
        self.cache: Literal["off", "miss", "hit"] = "off"
        self.cache_key = b""
        self.recalled: Entry | None = None
        self.kept: list[bytes] | None = None  # what is to be remembered of the answer
        # reserve
        self.reservation: Reservation | None = None
        self.estimate = 0  # tokens of the prompt, guessed from its length
        # admit, dispatch
        self.pool: PoolState | None = None
        self.admitted = False
        self.admitted_ns = 0
        self.dispatched_ns = 0
        self.holding = False  # a replica counts this request as in flight
        self.response: Response | None = None
        self.replica = ""
        self.attempts = 0
        # relay
        self.first_ns = 0
        self.last_ns = 0
        self.chunks = 0
        self.usage: Usage | None = None
        self.usage_event = b""  # the chunk that tells it
        self.finish = ""
        self.tail = b""  # the reply's last bytes, which wait for the record
        self.broken = False  # a stream that must not end as if it were whole
        self.status = 0
        self.outcome: Outcome = "ok"
        self.error = ""
        self.digest = ""

    def fail(self, error: PenstockError) -> None:
        """The request ends with `error`: as the reply if none has begun, else in it."""
        self.error = error.code
        if not self.status:
            self.status = error.status
        self.outcome = "refused" if error.status < 500 else "error"
