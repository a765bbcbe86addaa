"""Step 10, of streams: events through as they come; the end is told only when it was reached."""

from __future__ import annotations

import time

from penstock.core.errors import PenstockError, UpstreamFailed
from penstock.core.exchange import Opened
from penstock.gateway.call import Call
from penstock.gateway.guarded import GuardedAnswer
from penstock.gateway.ports import Answer
from penstock.gateway.record import exchange_of, reply_lines
from penstock.gateway.relay import MAX_ANSWER_BYTES
from penstock.gateway.screen import merged
from penstock.gateway.upstream import refusal
from penstock.net.reply import Reply
from penstock.wire.answer import decode_answer
from penstock.wire.ending import finish_of, usage_of
from penstock.wire.phases import take_phases
from penstock.wire.quality import take_quality
from penstock.wire.sse import DONE, EventSplitter, event_data, split_events

SSE_LINES = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"


class BrokenStream(UpstreamFailed):
    """The engine told an error within its stream; the client has seen it."""


async def relay_stream(call: Call, response: Answer, reader: Reader | None = None) -> None:
    """Relays events until `[DONE]`, which itself is left in `call.tail`. `reader` is for those who look at more than events.

    Raises:
        BadRequest: if the engine found fault with the request.
        UpstreamFailed: if the stream ends before `[DONE]`, or is none.
        UpstreamTimeout: if it stalls.
    """
    await _check_head(response)
    if reader is None:
        reader = Reader(call)
    reply = call.reply
    try:
        while True:
            ended = await response.flow(reader.take)
            if reader.first:
                # A client that has seen an answer begin finds it in the journal, whatever happens to us next.
                await call.gateway.journal.committed()
                reply.write(reader.first)
                reader.first = b""
                reader.begun = True
            if ended or reader.done or reader.failed:
                break
            await reply.drain()
    except (ValueError, RecursionError):
        raise UpstreamFailed("The engine's stream holds what is no event.", code="upstream_garbage") from None
    call.last_ns = time.monotonic_ns() - call.started_ns
    reader.close()
    if reader.failed:
        raise BrokenStream("The engine broke off with an error.", code="upstream_error")
    if not reader.done:
        raise UpstreamFailed("The engine ended its stream before it was complete.", code="upstream_truncated")
    if not call.status:
        begin(call)
    if not reader.stopped:
        response.leave()
    call.tail = DONE


async def _check_head(response: Answer) -> None:
    if response.status != 200:
        raise refusal(response, await response.read(MAX_ANSWER_BYTES))
    kind = response.header(b"content-type") or b""
    if not kind.startswith(b"text/event-stream"):
        raise UpstreamFailed("The engine answered a stream with something else.", code="upstream_garbage")


def begin(call: Call) -> None:
    """The reply's head, and the record that tells of a stream whose end may never be written."""
    call.status = 200
    call.first_ns = time.monotonic_ns() - call.started_ns
    call.reply.start(200, (), SSE_LINES + reply_lines(call))
    if call.recalled is None and not call.quiet and not call.gateway.recorder.silent:
        call.gateway.journal.append(Opened(exchange=exchange_of(call)))


class Reader:
    """Looks at events as they pass, into as few of them as it can."""

    tells_errors = True  # what an engine says of its failure is passed on

    __slots__ = (
        "_before",
        "_call",
        "_guarded",
        "_last",
        "_own",
        "_splitter",
        "_wants_usage",
        "begun",
        "done",
        "failed",
        "first",
        "stopped",
    )

    def __init__(self, call: Call) -> None:
        rules = call.rules
        guard = rules.guard if rules is not None and rules.screens_output else None
        self._call = call
        if call.captured and call.kept is None:
            call.kept = []
        self._guarded = GuardedAnswer(guard) if guard is not None else None
        self._own = call.reply if isinstance(call.reply, Reply) else None  # takes events as they were framed
        self._wants_usage = call.envelope.wants_usage
        self._splitter = EventSplitter()
        self._before = b""
        self._last = b""
        self.begun = False  # the client has been sent what the answer begins with
        self.first = b""  # what the answer begins with, until the journal has told of it
        self.done = False
        self.failed = False  # the engine told an error
        self.stopped = False  # a rule ended it

    def take(self, piece: bytes, framed: bytes = b"") -> bool:
        """Passes on the events that `piece` completes; False if there is to be no more now.

        Whole events that nobody has to look into go on as they were `framed`.

        Raises:
            ValueError: if it holds what is no event.
        """
        own = self._own
        if self._guarded is not None:
            if framed and own is not None and self.begun and not self._splitter.rest:
                shown = self._guarded.alike(piece)
                if shown is not None:
                    return self._screened_alike(own, piece, framed, shown)
        elif (
            framed
            and own is not None
            and self.begun
            and 0 < piece.find(b"\n\n") == len(piece) - 2  # one event
            and piece.find(b'"usage"') < 0  # `in` would raise and catch an error for each: bytes take numbers too
            and piece.find(b"[DONE]") < 0
            and piece.find(b'"error"') < 0
            and not self._splitter.rest
        ):
            call = self._call
            self._before = self._last
            self._last = piece
            call.chunks += 1
            kept = call.kept
            if kept is not None:
                kept.append(piece)
            return own.pass_on(piece, framed)
        data = self._splitter.whole(piece)
        if not data:
            return True
        data = self._pass_on(data)
        if data:
            call = self._call
            if not call.status:
                begin(call)
                self.first = data
                return False
            reply = call.reply
            reply.write(data)
            if reply.blocked:
                return False
        return not (self.done or self.failed)

    def _pass_on(self, data: bytes) -> bytes:
        call = self._call
        self._before, self._last = self._last, data
        guarded = self._guarded
        if guarded is not None:
            if (
                data.startswith(b"data: {")
                and data.find(b"\n") == len(data) - 2  # one event of one line
                and data.find(b'"usage"') < 0
                and data.find(b'"error"') < 0
            ):
                return self._screened(guarded, data[6:-2])
            return self._each(data)
        usage = data.rfind(b'"usage"')
        if (
            (usage >= 0 and not data.startswith((b":null", b": null"), usage + 7))
            or b"[DONE]" in data
            or b'"error"' in data
        ):
            return self._each(data)
        call.chunks += data.count(b"\n\n")
        if call.kept is not None:
            call.kept.append(data)
        return data

    def _each(self, data: bytes) -> bytes:
        call = self._call
        out: list[bytes] = []
        for event in split_events(data):
            payload = event_data(event)
            if payload == b"[DONE]":
                out.append(self._told_done())
                break
            if not payload:  # a comment
                out.append(event)
                continue
            if payload.find(b'"usage"') >= 0 or payload.find(b'"error"') >= 0:
                answer = decode_answer(payload)
                if answer.failed:
                    self.failed = True
                    if self.tells_errors:
                        out.append(event)
                    break
                usage = usage_of(answer.usage)
                if usage is not None:
                    call.usage = usage
                    if not answer.choices:  # the chunk that was asked for
                        out += self._keep_usage(event)
                        continue
            call.chunks += 1
            if self._guarded is None:
                out.append(event)
                continue
            screened = self._guarded.alike(event)
            if screened is None:
                screened = self._guarded.event(payload)
            if screened:
                out.append(screened)
            if self._guarded.blocked:
                self._stop()
                break
        if call.kept is not None:
            call.kept.extend(event for event in out if event is not call.usage_event)
        return b"".join(out)

    def _told_done(self) -> bytes:
        """The engine says that it is over; what rules still hold back, if it did not say so of each choice."""
        self.done = not self.failed
        guarded = self._guarded
        if guarded is None or self.failed:
            return b""
        rest = guarded.rest()
        if guarded.blocked:
            self._stop()
        return rest

    def _screened(self, guarded: GuardedAnswer, payload: bytes) -> bytes:
        call = self._call
        call.chunks += 1
        event = guarded.event(payload)
        if guarded.blocked:
            self._stop()
        if event and call.kept is not None:
            call.kept.append(event)
        return event

    def _screened_alike(self, own: Reply, piece: bytes, framed: bytes, shown: bytes) -> bool:
        call = self._call
        self._before = self._last
        self._last = piece
        call.chunks += 1
        if not shown:
            return True
        kept = call.kept
        if kept is not None:
            kept.append(shown)
        if shown is piece:
            return own.pass_on(piece, framed)
        own.write(shown)
        return not own.blocked

    def _stop(self) -> None:
        """A rule has ended the answer."""
        self.done = self.stopped = True
        self._call.finish = "content_filter"

    def _keep_usage(self, event: bytes) -> list[bytes]:
        """Keeps the event that tells the usage, and notes what else the engine tells in it; what of it goes on."""
        call = self._call
        if event.startswith(b":"):
            event, call.engine = take_phases(event)
            if call.examined:
                event, call.quality = take_quality(event)
        call.usage_event = event
        return [call.usage_event] if self._wants_usage else []

    def close(self) -> None:
        """Notes what is known at the end: findings, and the finish reason out of the last events."""
        call = self._call
        if self._guarded is not None:
            call.findings = merged(call.findings, self._guarded.findings)
        self.look_for_finish()

    def look_for_finish(self) -> None:
        """Notes the finish reason, if the last events tell one."""
        call = self._call
        if call.finish:
            return
        for event in reversed(split_events(self._before + self._last)):
            if b"finish_reason" not in event:
                continue
            try:
                reason = finish_of(decode_answer(event_data(event)).choices)
            except (ValueError, RecursionError):
                continue
            if reason:
                call.finish = reason
                return


def closing_event(error: PenstockError, event: bytes) -> bytes:
    """What a broken stream ends with: nothing more if the client has seen the engine's own error."""
    return b"" if isinstance(error, BrokenStream) else event
