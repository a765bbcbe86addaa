"""How many further attempts a pool's requests may cause, so that trying again never multiplies an outage.

The retry budget of Finagle (twitter.github.io/finagle/guide/Clients.html, "Retries"): a share of the requests, and a few a second in
any case. Hedged copies have a budget of the same kind without those few: "The tail at scale" (Dean and Barroso, CACM 56(2), 2013).
"""


class Budget:
    """A bucket that each request fills by `share`, and each second by `per_s`, up to `most`; an attempt takes 1 out.

    `taken` and `refused` count attempts, `won` those that answered first, which their owner notes.
    Requests are counted by their owner, who says how many there have been when it asks: a request itself costs nothing here.
    """

    __slots__ = ("_at", "_balance", "_requests", "most", "per_s", "refused", "share", "taken", "won")

    def __init__(self, *, share: float, per_s: float, most: float, full: bool) -> None:
        """`full`: whether it begins with `most` in it, else empty."""
        self.share = share
        self.per_s = per_s
        self.most = most
        self.taken = 0
        self.refused = 0
        self.won = 0
        self._balance = most if full else 0.0
        self._requests = 0
        self._at: float | None = None

    def take(self, requests: int, now: float) -> bool:
        """Takes one attempt out, if there is one.

        Args:
            requests: how many the pool has had in all.
            now: seconds of a clock that never goes back.
        """
        since = now - self._at if self._at is not None else 0.0
        filled = self._balance + self.share * (requests - self._requests) + self.per_s * since
        self._balance = min(self.most, filled)
        self._requests, self._at = requests, now
        if self._balance < 1.0:
            self.refused += 1
            return False
        self._balance -= 1.0
        self.taken += 1
        return True

    def give_back(self) -> None:
        """The attempt that was taken last is not made: there is nobody to ask."""
        self._balance += 1.0
        self.taken -= 1


def retry_budget(share: float) -> Budget:
    """Of retries: ten a second whatever comes, and no more than a hundred saved up."""
    return Budget(share=share, per_s=10.0, most=100.0, full=True)


def hedge_budget(share: float) -> Budget:
    """Of second copies: never more than `share` of the requests, and no more than a hundred saved up."""
    return Budget(share=share, per_s=0.0, most=100.0, full=False)
