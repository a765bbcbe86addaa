"""What is remembered of a stream as it passes, so that another replica can go on with it; here of engines that tell their tokens."""

from __future__ import annotations

from penstock.gateway.call import Call
from penstock.gateway.stream import Reader
from penstock.net.client import Response
from penstock.wire.edit import replaced
from penstock.wire.resume import CONTINUE, HEADER, MEMBER, TELL, Continuation, Head, decode_head, without_ids
from penstock.wire.sse import EventSplitter, event_data, split_events

MAX_KEPT_BYTES = 262144  # of one stream; a longer one is not resumed any more


class Trail(Reader):
    """Looks at a stream's events, from as many replicas as it takes. It is the base of those that know a dialect."""

    __slots__ = ("_body", "_kept", "_start")

    tells_errors = False

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._body = call.body
        self._start = b""  # the first events that came
        self._kept = 0  # bytes

    def take(self, piece: bytes, framed: bytes = b"") -> bool:
        """As of any reader; nothing goes on as it was `framed`, because all of it is looked at."""
        return super().take(piece)

    @property
    def came(self) -> bool:
        """Whether anything has come."""
        return bool(self._start)

    @property
    def ended(self) -> bool:
        """Whether the client knows why the answer ended."""
        self.look_for_finish()
        return bool(self._call.finish)

    def close(self) -> None:
        """As of any reader, but only of a stream that is whole: of another one the rest may follow."""
        if self.done:
            super().close()

    def go_on(self) -> bool:
        """Makes `call` ask for the rest, and is ready for it; False if the rest cannot be asked for."""
        self._splitter = EventSplitter()
        self.failed = False
        try:
            head = decode_head(event_data(split_events(self._start)[0]))
        except (ValueError, RecursionError):
            return False
        return self._kept <= MAX_KEPT_BYTES and self._ask(self._call, head)

    def give_up(self) -> None:
        """Nothing more will come: what was found is noted, and `call` asks for the whole answer again, should anybody do so."""
        super().close()
        self._call.body = self._body

    def fits(self, response: Response) -> bool:
        """Whether an answer's head promises what was asked for."""
        raise NotImplementedError

    def _ask(self, call: Call, head: Head) -> bool:
        raise NotImplementedError


class TokenTrail(Trail):
    """Of an engine that tells its tokens in lines of their own, which clients do not see."""

    __slots__ = ("_lines",)

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._lines: list[bytes] = []

    def fits(self, response: Response) -> bool:
        """Whether the engine tells its tokens, or goes on, as it was asked to: others would begin anew."""
        return response.header(HEADER) == (CONTINUE if self._start else TELL)

    def _pass_on(self, data: bytes) -> bytes:
        if not self._start:
            self._start = data
        data, lines = without_ids(data)
        if lines and self._kept <= MAX_KEPT_BYTES:
            self._lines += lines
            self._kept += sum(map(len, lines))
        return super()._pass_on(data)

    def _ask(self, call: Call, head: Head) -> bool:
        told = [list(map(int, line.split())) for line in self._lines]
        so_far = Continuation(
            id=head.id,
            created=head.created,
            tokens=[token for _, *tokens in told for token in tokens],
            sent=told[-1][0] if told else 0,
            ended=self.ended,
        )
        call.body = replaced(self._body, {MEMBER: so_far})
        call.resume = b"%b: %b\r\n" % (HEADER, CONTINUE)
        return True
