"""Steps 9 and 10 of an interleaved request that streams: both answers as they come, as two choices of one stream.

The stream begins when both answers have begun, or with the control's alone when the other one is not there in time. Everything in an event but
its choice is as in the control's first, whichever answer it belongs to, so that nothing tells whose a choice is. What is drafted needs
both answers whole: that stream begins when they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core.errors import PenstockError
from penstock.experiments.interleave import drafted
from penstock.gateway.beside import Beside, Given, all_of, ask, count, has_own_rules, second_of, text_in
from penstock.gateway.call import Call
from penstock.gateway.guest import Guest, Source, streams
from penstock.gateway.interleave import Shown, Whole, alone, first_of, interleaved, joined, paid
from penstock.gateway.ports import Answer
from penstock.gateway.relay import MAX_ANSWER_BYTES, relay
from penstock.gateway.stream import relay_stream
from penstock.wire.answer import decode_answer
from penstock.wire.ending import finish_of
from penstock.wire.spoken import CALL, texts_of_events
from penstock.wire.sse import DONE, encode_event, event_data, split_events

CUT = "error"  # the finish reason of a choice whose model did not end it
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


async def relay_both(call: Call, beside: Beside) -> None:
    """The reply of both arms, or of the control alone. The call is admitted to the control's pool.

    Raises:
        PenstockError: as `relay` and `relay_stream` of the control's answer.
    """
    if not call.stream:
        await relay(call, await interleaved(call, beside))
        return
    second = second_of(call, beside)
    if second is None:
        count(call, "interleave", beside.experiment.name, "single_busy")
        await relay_stream(call, await first_of(call))
        return
    notes = call.notes
    plan = beside.experiment.interleave
    try:
        if plan is not None and plan.show == "draft":
            await _drafted(call, beside, second, plan.patience_s)
        else:
            await _side_by_side(call, beside, second, plan.patience_s if plan is not None else 0.0)
    except PenstockError:
        if not call.status:  # another replica may answer
            call.notes, call.pair, call.epoch = notes, None, 0
        raise


# -- drafted -----------------------------------------------------------------------------------------------------------


async def _drafted(call: Call, beside: Beside, second: Call, patience_s: float) -> None:
    other = asyncio.create_task(ask(second, call, joined=True))
    try:
        response = await first_of(call)
        if not streams(response):
            count(call, "interleave", beside.experiment.name, "skipped_failed")
            await relay_stream(call, response)
            return
        body = await all_of(response)
        if body.endswith(DONE):
            await asyncio.wait((other,), timeout=patience_s)
            given = other.result() if other.done() else None
            body = joined(call, beside, second, given, body, _draft)
    finally:
        other.cancel()
    await relay_stream(call, Whole(response, body))


def _draft(body: bytes, given: Given, arms: tuple[str, str], draw: Callable[[], float]) -> Shown | None:
    """A stream of one choice, drafted from both."""
    texts = texts_of_events([body])
    found = drafted(text_in(texts), given.text, draw)
    if found is None or any(field == CALL for _, field, _ in texts):
        return None
    alike: dict[str, Any] = {}
    last: list[bytes] = []
    finish: str | None = None
    for event in split_events(body):
        payload = event_data(event)
        if payload == b"[DONE]" or not payload:
            last.append(event)
            continue
        answer = decode_answer(payload)
        if answer.failed:
            return None
        if not answer.choices:
            last.append(event)
            continue
        finish = finish_of(answer.choices) or finish
        alike = alike or _alike(_decode(payload))
    deltas: tuple[tuple[dict[str, str], str | None], ...] = (
        ({"role": "assistant", "content": ""}, None),
        ({"content": found.text}, None),
        ({}, finish),
    )
    events = [
        _encode({**alike, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
        for delta, reason in deltas
    ]
    return b"".join([*map(encode_event, events), *last]), tuple(arms[team] for team in found.teams)


# -- side by side ------------------------------------------------------------------------------------------------------


async def _side_by_side(call: Call, beside: Beside, second: Call, patience_s: float) -> None:
    guest = Guest(second, own=has_own_rules(second, call))
    begins = asyncio.create_task(guest.begin())
    both: _Both | None = None
    try:
        response = await first_of(call)
        if not streams(response):
            count(call, "interleave", beside.experiment.name, "skipped_failed")
            await relay_stream(call, response)
            return
        source = Source(response)
        first = await source.more()
        await asyncio.wait((begins,), timeout=patience_s)
        late = not begins.done()
        if late or (guest.over and not guest.whole):
            await relay_stream(call, _Resumed(response, first, source.rest))
        else:
            call.notes += b"x-penstock-interleaved: both; n=2\r\n"
            both = _Both(call, source, guest, first, patience_s)
            await relay_stream(call, both)
    finally:
        begins.cancel()
        if both is not None:
            both.stop()
        guest.end()
    if both is not None:
        both.tell(beside)
    else:
        alone(call, beside, second, None if late else guest.given())


def _alike(document: dict[str, Any]) -> dict[str, Any]:
    """What stands in every event of a stream."""
    return {name: value for name, value in document.items() if name not in {"choices", "usage"}}


class _Both:
    """Two answers as one: an `Answer` whose stream has both choices. The control's usage and end come last."""

    status = 200

    def __init__(self, call: Call, source: Source, guest: Guest, first: list[bytes], patience_s: float) -> None:
        self._call = call
        self._source = source
        self._guest = guest
        self._first = first
        self._patience_s = patience_s
        self._place = 0 if call.gateway.draw() < 0.5 else 1  # of the control's choice
        self._alike: dict[str, Any] = {}
        self._out: list[bytes] = []
        self._last: list[bytes] = []  # what ends the reply
        self._reading: dict[asyncio.Task[list[bytes]], bool] = {}  # whether it is the control's
        self._until = 0.0  # when a guest that is late is cut off, monotonic seconds; 0: the control is not over
        self._chunks = 0  # of the control's
        self._finish = ""
        self._guest_over = self._late = self._over = False

    def header(self, name: bytes) -> bytes | None:
        """See `Response.header`."""
        return self._source.answer.header(name)

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """See `Response.read`: nobody reads a stream whole."""
        return await self._source.answer.read(limit)

    async def flow(self, sink: Callable[[bytes, bytes], bool]) -> bool:
        """See `Response.flow`."""
        if self._first:
            first, self._first = self._first, []
            self._take(first)
        while True:
            if self._out:
                data, self._out = b"".join(self._out), []
                if not sink(data, b""):
                    return False
            if self._over:
                return True
            await self._wait()

    def leave(self) -> None:
        """See `Response.leave`."""
        self._source.answer.leave()

    def stop(self) -> None:
        """Read no further. The user pays for the control's part of what was read."""
        for task in self._reading:
            if not task.cancel() and not task.cancelled():
                task.exception()
        self._call.chunks = min(self._call.chunks, self._chunks)

    def tell(self, beside: Beside) -> None:
        """Once the reply is whole: the call's `pair` tells what the other arm did, and whose each choice is if both are whole."""
        call, guest = self._call, self._guest
        # A content rule that ended the reply has set another finish reason.
        complete = guest.whole and self._guest_over and self._over and call.finish == self._finish
        if not guest.over:
            guest.call.outcome = "error" if self._late else "cancelled"  # who is too late for the user has failed
        pair = paid(call, beside, guest.given())
        if complete:
            arms = (call.arm, beside.leg.name)
            call.pair = msgspec.structs.replace(pair, shown=arms if self._place == 0 else arms[::-1])
        count(call, "interleave", beside.experiment.name, "shown" if complete else "cut")

    def _read(self, *, control: bool) -> None:
        more = self._source.more() if control else self._guest.more()
        self._reading[asyncio.create_task(more)] = control

    async def _wait(self) -> None:
        """Until one of both has said more, ended, or is late.

        Raises:
            UpstreamFailed: if the control's answer breaks off.
            UpstreamTimeout: if it stalls.
            ValueError: if it holds what is no answer.
        """
        left = max(0.0, self._until - time.monotonic()) if self._until else None
        done, _ = await asyncio.wait(self._reading, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            control = self._reading.pop(task)
            found = task.result()
            if control:
                self._take(found)
            else:
                self._out += [self._shown(_decode(payload), 1 - self._place) for payload in found]
                if self._guest.over:
                    self._end_guest()
                else:
                    self._read(control=False)
        if self._until and not self._guest_over and time.monotonic() >= self._until:
            self._late = True
            self._end_guest()
        if self._until and self._guest_over and not self._over:
            self._out += self._last
            self._over = True

    def _take(self, events: list[bytes]) -> None:
        """The control's next events; none: it has ended before its end, which whoever relays it sees."""
        self._over = not events
        for event in events:
            payload = event_data(event)
            if payload == b"[DONE]":
                self._last.append(event)
                self._until = time.monotonic() + self._patience_s
                self._guest_over = self._guest_over or not self._alike  # nothing was said that could be compared
                return
            answer = decode_answer(payload) if payload else None
            if answer is None or answer.failed:
                self._out.append(event)
            elif not answer.choices:
                self._last.append(event)  # the usage stands before the end
            else:
                document = _decode(payload)
                if not self._alike:
                    self._alike = _alike(document)
                    self._out.append(self._opening())
                    self._read(control=False)
                self._chunks += 1
                self._call.finish = self._finish = finish_of(answer.choices) or self._finish
                self._out.append(self._shown(document, self._place, document.get("usage")))
        if events:
            self._read(control=True)

    def _shown(self, document: dict[str, Any], place: int, usage: object = None) -> bytes:
        choice = document["choices"][0] | {"index": place}
        delta = choice.get("delta")
        if isinstance(delta, dict) and "role" in delta:
            choice["delta"] = {name: value for name, value in delta.items() if name != "role"}  # told already
        more = {} if usage is None else {"usage": usage}
        return encode_event(_encode({**self._alike, "choices": [choice], **more}))

    def _opening(self) -> bytes:
        """The first event, of both choices: clients make room for as many as that one has (the official one does)."""
        delta = {"role": "assistant", "content": ""}
        choices = [{"index": place, "delta": delta, "finish_reason": None} for place in (0, 1)]
        return encode_event(_encode({**self._alike, "choices": choices}))

    def _end_guest(self) -> None:
        """No more of the other choice: one that its model did not end is told to be cut."""
        self._guest_over = True
        if not self._guest.whole:
            self._out.append(self._shown({"choices": [{"delta": {}, "finish_reason": CUT}]}, 1 - self._place))


class _Resumed:
    """An answer whose beginning has been read."""

    status = 200

    def __init__(self, answer: Answer, events: list[bytes], rest: bytes) -> None:
        self._answer = answer
        self._held = b"".join(events) + rest

    def header(self, name: bytes) -> bytes | None:
        """See `Response.header`."""
        return self._answer.header(name)

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """See `Response.read`."""
        return self._held + await self._answer.read(limit)

    async def flow(self, sink: Callable[[bytes, bytes], bool]) -> bool:
        """See `Response.flow`."""
        held, self._held = self._held, b""
        if held and not sink(held, b""):
            return False
        return await self._answer.flow(sink)

    def leave(self) -> None:
        """See `Response.leave`."""
        self._answer.leave()
