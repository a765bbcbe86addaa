"""Votes on two answers, as a verdict tells them."""

import msgspec


class Votes(msgspec.Struct, frozen=True, kw_only=True):
    """Which of two arms was preferred. `share` is the treatment's of all votes but ties, with its confidence sequence.

    `strength` is the Bradley-Terry strength of the treatment, the control's being 0: the logarithm of the odds to be preferred; None where
    it is infinite. `evidence` is the logarithm of the e-value against "as often as not", and enough at `limit`.
    """

    metric: str
    arm: str
    control: str
    won: int
    lost: int
    ties: int
    share: float
    lower: float
    upper: float
    evidence: float
    limit: float
    strength: float | None = None
    strength_lower: float | None = None
    strength_upper: float | None = None
