"""What the engine sees of an answer's quality: how likely its tokens were, how much it repeats itself, whether it refuses."""

from functools import lru_cache

from penstock.core.errors import BadRequest
from penstock.core.exchange import Quality
from penstock.routing.patterns import Patterns
from penstock.wire.quality import HEADER, patterns_of


class Examination:
    """Of one choice, while it comes into being.

    Attributes:
        scored: its tokens whose probability is known.
        logprob: the sum of the natural logarithms of these.
    """

    __slots__ = ("_text", "_tokens", "logprob", "scored")

    def __init__(self) -> None:
        self.scored = 0
        self.logprob = 0.0
        self._tokens: list[int] = []
        self._text: list[str] = []

    def feed(self, tokens: list[int], logprobs: list[float] | None) -> None:
        """Takes tokens that belong to the answer, with their log-probabilities if they are known."""
        self._tokens += tokens
        if logprobs is not None:
            self.scored += len(logprobs)
            self.logprob += sum(logprobs)

    def say(self, text: str) -> None:
        """Takes text of the answer."""
        self._text.append(text)

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(self._text)

    def trigrams(self) -> tuple[int, int]:
        """How many runs of three tokens it has, and how many of them it had before (1 - distinct-3, Li et al. 2016, times the first)."""
        tokens = self._tokens
        count = max(0, len(tokens) - 2)
        return count, count - len(set(zip(tokens, tokens[1:], tokens[2:], strict=False)))


def quality_of_all(examined: list[Examination], refusals: Patterns) -> Quality:
    """The sums over an answer's choices; whether it refuses, the first one tells."""
    counted = [one.trigrams() for one in examined]
    return Quality(
        sum(one.scored for one in examined),
        min(0.0, sum(one.logprob for one in examined)),
        sum(count for count, _ in counted),
        sum(repeated for _, repeated in counted),
        bool(refusals) and refusals.found_in(examined[0].text),
    )


@lru_cache(64)
def refusals_of(value: bytes) -> Patterns:
    """The patterns that a request's field `x-penstock-quality` holds, compiled.

    Raises:
        BadRequest: if they are none.
    """
    try:
        return Patterns(patterns_of(value))
    except ValueError as error:
        raise BadRequest(
            f"The header field {HEADER.decode()} is no list of patterns: {error}.", param=HEADER.decode()
        ) from None
