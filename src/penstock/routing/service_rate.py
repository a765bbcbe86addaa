"""How fast a pool works off what waits for it (pure)."""

_DECAY = 0.98  # of what was measured, with each request that ends: about the last fifty count
_ENOUGH = 4.0  # requests that must have ended before a rate is told


class ServiceRate:
    """Cost that ended in a second of the time in which requests waited. It keeps no clock: all times are of one that never goes back."""

    __slots__ = ("_cost", "_count", "_last", "_seconds")

    def __init__(self) -> None:
        self._count = 0.0
        self._cost = 0.0
        self._seconds = 0.0
        self._last = 0.0

    def began(self, now: float) -> None:
        """Somebody waits from `now` on, as nobody did before."""
        self._last = now

    def ended(self, cost: float, now: float) -> None:
        """A request of this cost ended while others waited."""
        self._count = self._count * _DECAY + 1.0
        self._cost = self._cost * _DECAY + cost
        self._seconds = self._seconds * _DECAY + (now - self._last)
        self._last = now

    def a_second(self, now: float) -> float:
        """Cost that ends in a second; 0 while too little is known. If nothing has ended for long, that counts too."""
        if self._count < _ENOUGH or self._seconds <= 0.0:
            return 0.0
        silent = now - self._last
        usual = self._seconds / self._count
        return self._cost / (self._seconds + max(0.0, silent - usual))
