"""A second answer that streams beside the first: its events as they come, by the content rules of its own arm."""

from __future__ import annotations

from penstock.core.errors import PenstockError, UpstreamFailed
from penstock.core.exchange import Usage
from penstock.gateway.beside import Given, failed, give_back, given_of, opened
from penstock.gateway.call import Call
from penstock.gateway.guarded import GuardedAnswer
from penstock.gateway.ports import Answer
from penstock.wire.answer import decode_answer
from penstock.wire.ending import finish_of, usage_of
from penstock.wire.sse import EventSplitter, event_data, split_events


def streams(response: Answer) -> bool:
    """Whether it is a stream of events, and no refusal."""
    return response.status == 200 and (response.header(b"content-type") or b"").startswith(b"text/event-stream")


class Source:
    """One arm's answer, event by event.

    Attributes:
        over: nothing more comes of it.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.over = False
        self._splitter = EventSplitter()
        self._pieces: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not whole yet."""
        return self._splitter.rest

    async def more(self) -> list[bytes]:
        """The next events, at least one unless the answer is over.

        Raises:
            UpstreamFailed: if it breaks off, or holds what is no event.
            UpstreamTimeout: if it stalls.
        """
        while not self.over:
            self.over = await self.answer.flow(self._take)
            data, self._pieces = b"".join(self._pieces), []
            try:
                events = self._splitter.feed(data)
            except ValueError:
                raise UpstreamFailed("The engine's stream holds what is no event.", code="upstream_garbage") from None
            if events:
                return events
        return []

    def _take(self, piece: bytes, _framed: bytes) -> bool:
        self._pieces.append(piece)
        return False


class Guest:
    """The other arm's answer. Nothing that becomes of it is raised.

    Attributes:
        over: nothing more comes of it.
        whole: it was ended by its model, or by a content rule.
    """

    def __init__(self, second: Call, *, own: bool) -> None:
        self.call = second
        self.over = self.whole = False
        self._own = own
        self._ok: bool | None = None  # whether the replica has done its part; None: it was not let
        self._source: Source | None = None
        self._guard: GuardedAnswer | None = None
        self._first: list[bytes] = []
        self._ended = False

    async def begin(self) -> None:
        """Asks, and waits for the first events."""
        second = self.call
        try:
            response = await opened(second, own=self._own)
            if not streams(response):
                raise UpstreamFailed("The engine answered a stream with something else.", code="upstream_garbage")
        except PenstockError as error:
            self._fail(error)
            return
        second.status = 200
        self._source = Source(response)
        rules = second.rules
        if self._own and rules is not None and rules.screens_output and rules.guard is not None:
            self._guard = GuardedAnswer(rules.guard)
        self._first = await self._read()

    async def more(self) -> list[bytes]:
        """The payloads of the next events that a choice is in; [] when there are no more."""
        if self._first:
            found, self._first = self._first, []
            return found
        return await self._read()

    async def _read(self) -> list[bytes]:
        source = self._source
        found: list[bytes] = []
        try:
            while source is not None and not found and not self.over:
                events = await source.more()
                if not events:
                    raise UpstreamFailed("The engine ended its stream too early.", code="upstream_truncated")
                for event in events:
                    found += self._payloads(event)
        except PenstockError as error:
            self._fail(error)
        except (ValueError, RecursionError):
            self._fail(UpstreamFailed("The engine's stream holds what is no event.", code="upstream_garbage"))
        return found

    def _payloads(self, event: bytes) -> list[bytes]:
        """What is to be shown of an event, in order."""
        second, guard = self.call, self._guard
        payload = event_data(event)
        if not payload or self.over:
            return []
        if payload == b"[DONE]":
            self._done()
            return [event_data(one) for one in split_events(guard.rest())] if guard is not None else []
        answer = decode_answer(payload)
        if answer.failed:
            raise UpstreamFailed("The engine broke off with an error.", code="upstream_error")
        second.usage = usage_of(answer.usage) or second.usage
        second.finish = finish_of(answer.choices) or second.finish
        if not answer.choices:
            return []
        second.chunks += 1
        if guard is None:
            return [payload]
        shown = guard.event(payload)
        if guard.blocked:
            second.finish = "content_filter"
            self._done()
        return [event_data(shown)] if shown else []

    def _done(self) -> None:
        self.over = self.whole = self._ok = True

    def _fail(self, error: PenstockError) -> None:
        self.over = True
        self._ok = failed(self.call, error)

    def end(self) -> None:
        """Gives back what it holds; an answer that is not over is given up."""
        if not self._ended:
            self._ended = True
            if self._guard is not None:
                self.call.findings = self._guard.findings
            give_back(self.call, self._usage(), ok=self._ok)

    def given(self) -> Given:
        """What it came to, once it has ended."""
        return given_of(self.call, b"", "", self._usage())

    def _usage(self) -> Usage:
        return self.call.usage or Usage(0, self.call.chunks)
