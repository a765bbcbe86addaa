"""Ends requests by the turn of the loop: the records of all that are over in one write, and then the last bytes of their replies.

One after the other, requests would find neither the code nor the data of these steps in the processor's caches; together, most do.
"""

from __future__ import annotations

import asyncio
import logging

from penstock.core.errors import PenstockError
from penstock.core.exchange import Usage
from penstock.gateway.call import Call
from penstock.gateway.capture import seal_all
from penstock.gateway.metrics import Meters
from penstock.gateway.ports import Journal
from penstock.gateway.record import record, reply_lines
from penstock.net.reply import header_lines
from penstock.net.server import HandlerBroke
from penstock.wire.openai import error_body, error_headers

_log = logging.getLogger("penstock.gateway")
_JSON = b"content-type: application/json\r\n"


class Recorder:
    """What is over and not recorded yet, of one worker."""

    __slots__ = ("_captured", "_ending", "_journal", "_loop", "_meters", "_over", "silent")

    def __init__(self, journal: Journal, meters: Meters, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._meters = meters
        self._loop = loop
        self.silent = (
            False  # nothing is recorded or counted, and no stream opens a record: for whoever measures what that costs
        )
        self._over: list[tuple[Call, Usage, int]] = []
        self._captured: list[Call] = []
        self._ending: list[tuple[Call, PenstockError | None]] = []

    @property
    def pending(self) -> int:
        """How many requests are over and not recorded yet."""
        return len(self._over)

    def add(self, call: Call, usage: Usage, nanousd: int) -> None:
        """Has the request recorded at the end of this turn of the loop."""
        if not self._over:
            self._loop.call_soon(self.flush)
        self._over.append((call, usage, nanousd))
        if call.captured:
            self._captured.append(call)
        if call.error == "internal_error":  # whoever catches what broke tells the client at once
            self.flush()

    def end(self, call: Call, failure: PenstockError | None) -> None:
        """Has the reply of a request that was added end once the record is in the kernel."""
        self._ending.append((call, failure))

    def flush(self) -> bool:
        """Records what is over, writes the journal, and ends the replies; whether no record was lost."""
        counts = self._journal.counts
        lost = counts.lost
        if self._captured:
            captured, self._captured = self._captured, []
            seal_all(captured)
        over, self._over = self._over, []
        if self.silent:
            over = []
        for call, usage, nanousd in over:
            try:
                record(call, usage, nanousd)
            except Exception as error:  # noqa: BLE001 - one record is lost here, the others must not be; it is counted
                counts.lost += 1
                self._meters.error("internal_error")
                _log.exception("the record of %s could not be made", call.id, exc_info=error)
        self._journal.flush()
        ending, self._ending = self._ending, []
        for call, failure in ending:
            try:
                finish(call, failure)
            except Exception as error:  # noqa: BLE001 - one reply ends here, the others must not end with it; it is counted
                self._meters.error("internal_error")
                _log.exception("the reply to %s could not be ended", call.id, exc_info=error)
                give_up(call)
        return counts.lost == lost


def give_up(call: Call) -> None:
    """Ends a reply whose last bytes could not be given out; nobody else would."""
    reply = call.reply
    if reply.started:
        reply.abort()
    else:
        reply.send(500, (), error_body(HandlerBroke("Something broke inside the server; its answer was lost.")), _JSON)


def finish(call: Call, failure: PenstockError | None) -> None:
    """Gives out the reply's last bytes."""
    reply = call.reply
    if call.broken:
        reply.write(call.tail)
        reply.abort()
    elif reply.started:
        reply.end(call.tail)
    elif failure is not None:
        reply.send(failure.status, (), call.tail, header_lines(error_headers(failure)) + reply_lines(call))
    else:
        reply.send(call.status, (), call.tail, _JSON + reply_lines(call))
