"""One request on its way: what every step reads, and what it adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
    """Mutable, owned by the one task that walks it. Each attribute is set by the step that it is listed under.

    The defaults are the class's: a request writes only what it comes to.
    """

    # decode
    stream: bool = False
    decoded_ns: int = 0
    trace: str = ""
    # authenticate, count
    caller: Caller | None = None
    standing: Standing | None = None
    # resolve
    route: RouteEntry | None = None
    leg: Leg | None = None
    rules: Rules | None = None
    pool: PoolState | None = None
    arm: str = ""
    epoch: int = 0
    propensity: float = 1.0
    unit: str = ""
    user: str = ""
    session: str = ""
    digest: str = ""
    # screen
    findings: tuple[Finding, ...] = ()
    # recall
    cache: Literal["off", "miss", "hit"] = "off"
    cache_key: bytes = b""
    recalled: Entry | None = None
    kept: list[bytes] | None = None  # what is to be remembered of the answer
    # reserve
    reservation: Reservation | None = None
    # admit, dispatch
    admitted: bool = False  # a place in the pool is taken
    admitted_ns: int = 0
    holding: bool = False  # a replica counts this request as in flight
    dispatched_ns: int = 0
    response: Response | None = None
    replica: str = ""
    attempts: int = 0
    # relay
    first_ns: int = 0
    last_ns: int = 0
    chunks: int = 0
    usage: Usage | None = None
    usage_event: bytes = b""  # the chunk that tells it
    finish: str = ""
    tail: bytes = b""  # the reply's last bytes, which wait for the record
    broken: bool = False  # a stream that must not end as if it were whole
    status: int = 0
    outcome: Outcome = "ok"
    error: str = ""

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
        self.envelope: Envelope = gateway.no_envelope
