"""One choice of an answer while it comes into being: tokens in, text out, until it is finished."""

import msgspec

from penstock.core.errors import UpstreamFailed
from penstock.engine.messages import Sampling
from penstock.engine.processing import Chain
from penstock.engine.quality import Examination
from penstock.engine.stops import StopFinder
from penstock.engine.text import Detokenizer, Tokenizer


class Chosen(msgspec.Struct, frozen=True):
    """A token that was chosen, where its text starts in the answer, and the logarithm of its probability."""

    data: bytes
    offset: int  # characters
    logprob: float


class Sequence:
    """The state of one choice.

    Attributes:
        id: its number on the engine, once it has one.
        index: its place among the answer's choices.
        completion: tokens brought forth so far, as far as they were read.
        finish: why it ended: "stop", "length"; "": it goes on.
        delta: text that has come and has not been taken by `take`.
        arrived_ns, began_ns, first_ns, last_ns: monotonic times of the request, of the pipeline taking it, its first and its latest token.
        dirty: it has news that have not been told.
        forced: tokens that another replica brought forth of it; the pipeline reads them after the prompt.
        untold: tokens that no event has told yet; None: nobody wants to know.
        examined: what is seen of its quality; None: nobody wants to know.
        failure: why its text could not be processed, once it is finished.
    """

    __slots__ = (
        "_chain", "_chosen", "_detokenizer", "_length", "_logprobs", "_skip", "_stops", "_tokenizer", "_whole", "arrived_ns", "began_ns", "completion",
        "delta", "dirty", "examined", "failure", "finish", "first_ns", "forced", "id", "index", "last_ns", "prompt", "sampling", "sent", "untold",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        prompt: list[int],
        sampling: Sampling,
        *,
        tokenizer: Tokenizer,
        stops: tuple[str, ...],
        arrived_ns: int,
        tells_logprobs: bool = False,
        chain: Chain | None = None,
        holds: bool = False,
    ) -> None:
        self.id = 0
        self.index = index
        self.prompt = prompt
        self.sampling = sampling
        self.completion = 0
        self.finish = ""
        self.delta = ""
        self.dirty = False
        self.arrived_ns = arrived_ns
        self.began_ns = 0
        self.first_ns = 0
        self.last_ns = 0
        self._tokenizer = tokenizer
        self._detokenizer: Detokenizer = tokenizer.detokenizer()
        self._stops = StopFinder(stops)
        self._chain = chain  # the version's own processing of answers
        self.failure: UpstreamFailed | None = None
        self._whole: list[str] | None = [] if holds else None  # text that `settle` makes an answer of
        self._logprobs = tells_logprobs
        self.examined: Examination | None = None
        self._chosen: list[Chosen] = []
        self._length = 0  # characters of text so far, those held back for a stop string included
        self._skip = 0  # characters of text that the client has from elsewhere
        self.sent = 0  # characters that went into `delta` so far, those that the client has from elsewhere included
        self.forced: list[int] = []
        self.untold: list[int] | None = None

    def force(self, tokens: list[int], sent: int, finish: str) -> None:
        """Takes the `tokens` that another replica brought forth, before any of its own.

        The first `sent` characters of their text need not come again. `finish` tells why nothing can follow them, or is "".
        """
        self.forced = tokens
        self._skip = sent
        self.feed(tokens, None, finish)

    def feed(self, tokens: list[int], logprobs: list[float] | None, finish: str) -> None:
        """Takes what the pipeline has brought forth; after the end nothing is taken."""
        if self.finish:
            return
        if self.untold is not None:
            self.untold += tokens
        before = self.completion
        if self._logprobs or (self._stops.waiting and len(tokens) > 1):
            for at, token in enumerate(tokens):
                self._one(token, logprobs[at] if logprobs else 0.0)
                if self._stops.hit:
                    break
        else:
            self.completion += len(tokens)
            self._text(self._detokenizer.feed(tokens))
        if self.examined is not None:
            count = self.completion - before
            self.examined.feed(tokens[:count], None if logprobs is None else logprobs[:count])
        if self._stops.hit:
            self.finish = "stop"
        elif finish:
            self._text(self._detokenizer.finish())
            self.finish = "stop" if self._stops.hit else finish
            self._add(self._stops.finish())
        if self.finish and self._chain is not None:
            try:
                self._say(self._chain.finish())
            except UpstreamFailed as error:
                self.failure = error

    def take(self) -> tuple[str, list[Chosen]]:
        """The text that has come since the last time, and its tokens if log-probabilities were asked for."""
        delta, self.delta = self.delta, ""
        if not self._chosen:
            return delta, []
        ready = [chosen for chosen in self._chosen if chosen.offset < self.sent]
        self._chosen = [] if self.finish else self._chosen[len(ready) :]
        return delta, ready

    @property
    def held(self) -> str:
        """All text of a sequence that holds it, as far as it has come."""
        return "".join(self._whole or ())

    def settle(self, text: str) -> None:
        """Takes `text` for the answer of a sequence that held its own until its end."""
        self._whole = None
        self._say(text)

    def _one(self, token: int, logprob: float) -> None:
        self.completion += 1
        if self._logprobs:
            data = self._tokenizer.piece(token)
            if data:
                self._chosen.append(Chosen(data, self._length, logprob))
        self._text(self._detokenizer.feed([token]))

    def _text(self, text: str) -> None:
        if text:
            self._length += len(text)
            self._add(self._stops.feed(text))

    def _add(self, text: str) -> None:
        self._say(text if self._chain is None else self._chain.feed(text))

    def _say(self, text: str) -> None:
        if self._whole is not None:
            self._whole.append(text)
            return
        self.sent += len(text)
        if self.examined is not None:
            self.examined.say(text)
        if self._skip:
            text, self._skip = text[self._skip :], max(0, self._skip - len(text))
        self.delta += text
