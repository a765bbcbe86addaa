"""Whether a small model's answer convinces, or a larger one is to be asked: by the log-probabilities of its own tokens.

The mean log-probability as a measure of confidence, and deferral below a threshold: Gupta et al., "Language model cascades:
token-level uncertainty and beyond", ICLR 2024, section 3; Chen et al., "FrugalGPT", 2023.
"""

from collections.abc import Sequence

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.snapshot import Cascade
from penstock.routing.patterns import Patterns


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of the first answer, or as much of it as was waited for.

    `logprobs` are of its tokens; None if the engine told none. `finish` is "" while it is not at its end.
    """

    text: str
    logprobs: Sequence[float] | None
    finish: str = ""


class Judge:
    """A cascade's rule, compiled.

    Raises:
        BadRequest: if a pattern is none.
    """

    __slots__ = ("_cascade", "_patterns", "measures")

    def __init__(self, cascade: Cascade) -> None:
        self._cascade = cascade
        self.measures = cascade.min_mean_logprob is not None or cascade.min_token_logprob is not None
        try:
            self._patterns = Patterns(cascade.patterns)
        except BadRequest as error:
            raise BadRequest(error.message, code=error.code, param="cascade.patterns") from None

    def convinced(self, drafts: Sequence[Draft]) -> bool:
        """Whether every one of `drafts` convinces; an answer without a choice, or without a token, does not.

        Where a threshold is set and log-probabilities are missing, nothing is known, and the larger model is asked.
        """
        return bool(drafts) and all(self._one(draft) for draft in drafts)

    def _one(self, draft: Draft) -> bool:
        cascade = self._cascade
        if draft.finish and draft.finish in cascade.finish:
            return False
        if self.measures:
            logprobs = draft.logprobs
            if not logprobs:
                return False
            if cascade.min_mean_logprob is not None and sum(logprobs) / len(logprobs) < cascade.min_mean_logprob:
                return False
            if cascade.min_token_logprob is not None and min(logprobs) < cascade.min_token_logprob:
                return False
        return not (self._patterns and self._patterns.found_in(draft.text))
