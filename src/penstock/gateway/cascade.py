"""Step 9 of a cascade: the first model is asked, and the second as well where the first does not convince.

A whole answer is judged whole. A stream is held back until its first `hold_tokens` tokens are there, or its end, and judged
by those: from then on it goes through as it comes, and what it says later is not looked at.
"""

from penstock.access.limits import BYTES_PER_TOKEN
from penstock.core.errors import PenstockError, Unavailable, UpstreamFailed
from penstock.core.exchange import Usage
from penstock.gateway.call import Call
from penstock.gateway.dispatch import dispatch, release
from penstock.gateway.index import CascadeEntry
from penstock.gateway.relay import MAX_ANSWER_BYTES
from penstock.gateway.salt import salt
from penstock.gateway.tries import note
from penstock.net.response import Response, Sink
from penstock.routing.cascade import Draft as Choice
from penstock.routing.prices import cost_nanousd
from penstock.wire.answer import decode_answer
from penstock.wire.edit import replaced
from penstock.wire.ending import usage_of
from penstock.wire.logprobs import asking, parts_of, without
from penstock.wire.sse import EventSplitter, encode_event, event_data, split_events

_MAX_HELD_BYTES = 4194304


class Unconvincing(Unavailable):
    """The first model's answer is not the one to give."""


async def draft(call: Call, entry: CascadeEntry) -> "Draft":
    """The first model's answer, with its beginning read already, if it convinces. The call is admitted to its pool.

    Raises:
        Unconvincing: if it does not, or the first model refuses the request (as one that is too long for it).
        PenstockError: as `dispatch`.
    """
    body = call.body
    asks = asking(body, chat=call.operation != "completions") if entry.judge.measures else None
    if asks is not None:
        call.body = asks
    try:
        response = await dispatch(call)
    finally:
        call.body = body
    found = call.draft = Draft(call, response, strips=asks is not None)
    if response.status != 200 or not await found.convinces(entry):
        raise Unconvincing("The first model's answer does not convince.")
    count(call, "first")
    return found


def escalate(call: Call, error: PenstockError) -> bool:
    """Turns a call whose first model did not answer, for the reason `error`, to the second one; False if it has none.

    The first one's usage stays with the call, to be paid with the second's.
    """
    entry = call.cascade
    if entry is None:
        return False
    usage = call.draft.usage if call.draft is not None else Usage()
    if isinstance(error, Unconvincing):
        note(call, "unconvincing")
    else:
        note(call, "failed", error.code)
    release(
        call, usage, ok=True if isinstance(error, Unconvincing) else None if isinstance(error, Unavailable) else False
    )
    call.cascade = call.draft = call.response = None
    call.escalated = True
    call.tried = usage
    call.spent = cost_nanousd(entry.first.entry.pool.price, usage)
    call.leg = entry.then
    pool = entry.then.entry.pool
    call.pool = call.gateway.pools.get(pool.name)
    call.digest = pool.digest
    call.attempts = call.dispatched_ns = call.redone = 0
    call.setback = None
    call.avoid = ()
    call.body = replaced(call.body, {"model": pool.model if pool.model is not None else call.envelope.model})
    if entry.first.entry.salted or entry.then.entry.salted:
        salt(call)
    count(call, "escalated")
    return True


def count(call: Call, result: str) -> None:
    """Counts an answer of a cascade: `first`, `escalated` or `control`."""
    route = call.route.route.name if call.route is not None else ""
    call.gateway.meters.cell("penstock_cascade_total", route, result).value += 1


class Draft:
    """The first model's answer, as far as it was read to be judged; then an answer like any other, from its beginning on."""

    def __init__(self, call: Call, response: Response, *, strips: bool) -> None:
        self._call = call
        self._response = response
        self._strips = strips  # the client has not asked for log-probabilities
        self._splitter = EventSplitter()
        self._held = b""
        self._ended = False
        self._texts: dict[int, list[str]] = {}
        self._scores: dict[int, list[float]] = {}
        self._finish: dict[int, str] = {}
        self._usage: Usage | None = None
        self.status = response.status

    @property
    def usage(self) -> Usage:
        """What was used of the first model: as it told, else as far as it came."""
        if self._usage is not None:
            return self._usage
        if self.status != 200:
            return Usage()
        tokens = sum(len(scores) for scores in self._scores.values()) or sum(len(one) for one in self._texts.values())
        return Usage(-(-len(self._call.body) // BYTES_PER_TOKEN), tokens)

    async def convinces(self, entry: CascadeEntry) -> bool:
        """Reads as much as is needed, and judges it.

        Raises:
            UpstreamFailed: if the answer breaks off, tells an error or is none.
            UpstreamTimeout: if it stalls.
        """
        try:
            if self._call.stream:
                await self._hold(entry.policy.hold_tokens * (self._call.envelope.n or 1))
            else:
                await self._whole()
        except (ValueError, RecursionError):
            raise UpstreamFailed("The first model's answer cannot be read.", code="upstream_garbage") from None
        return entry.judge.convinced(
            [
                Choice(text="".join(texts), logprobs=self._scores.get(index), finish=self._finish.get(index, ""))
                for index, texts in self._texts.items()
            ]
        )

    async def _whole(self) -> None:
        body = await self._response.read(MAX_ANSWER_BYTES)
        self._look(body)
        self._held = without(body) if self._strips else body
        self._ended = True

    async def _hold(self, most: int) -> None:
        held: list[bytes] = []
        size = tokens = 0
        while tokens < most and size < _MAX_HELD_BYTES and not self._ended:
            piece = await self._response.piece()
            if not piece:
                raise UpstreamFailed("The first model ended its stream before it was complete.")
            for event in split_events(self._splitter.whole(piece)):
                payload = event_data(event)
                held.append(self._passed(event))
                size += len(event)
                if payload == b"[DONE]":
                    self._ended = True
                    break
                if payload:
                    tokens += self._look(payload)
        self._held = b"".join(held)

    def _look(self, data: bytes) -> int:
        answer = decode_answer(data)
        if answer.failed:
            raise UpstreamFailed("The first model broke off with an error.")
        self._usage = usage_of(answer.usage) or self._usage
        count = 0
        for part in parts_of(data) if answer.choices else ():
            texts = self._texts.setdefault(part.index, [])
            scores = part.scores
            if part.said:
                texts.append(part.said)
                count += 1 if scores is None else 0
            if scores is not None:
                self._scores.setdefault(part.index, []).extend(scores)
                count += len(scores)
            if part.finish_reason:
                self._finish[part.index] = part.finish_reason
        return count

    def _passed(self, event: bytes) -> bytes:
        if not self._strips or b'"logprobs"' not in event:
            return event
        payload = event_data(event)
        bare = without(payload)
        return event if bare is payload else encode_event(bare)

    # -- as an answer --------------------------------------------------------------------------------------------------

    def header(self, name: bytes) -> bytes | None:
        """See `Response.header`."""
        return self._response.header(name)

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """See `Response.read`."""
        if len(self._held) > limit:
            raise UpstreamFailed(f"The answer is longer than {limit} bytes.")
        return self._held

    async def flow(self, sink: Sink) -> bool:
        """See `Response.flow`."""
        held, self._held = self._held, b""
        if held and not sink(held, b""):
            return self._ended
        if self._ended:
            return True
        return await self._response.flow(_Stripper(self, sink))

    def take(self, piece: bytes, sink: Sink) -> bool:
        """Hands on the events that `piece` completes, without what the client did not ask for."""
        data = b"".join([self._passed(event) for event in split_events(self._splitter.whole(piece))])
        return sink(data, b"") if data else True

    def leave(self) -> None:
        """See `Response.leave`."""
        self._response.leave()

    def abort(self) -> None:
        """See `Response.abort`."""
        self._response.abort()


class _Stripper:
    """A sink before another one."""

    __slots__ = ("_draft", "_sink")

    def __init__(self, draft: Draft, sink: Sink) -> None:
        self._draft = draft
        self._sink = sink

    def __call__(self, piece: bytes, _framed: bytes) -> bool:
        return self._draft.take(piece, self._sink)
