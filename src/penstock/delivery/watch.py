"""Whether everything that gateways record is being heard: what a canary's share rests on.

A share that nobody watches must lapse. So it is carried on only as far as the record of every gateway worker that is alive has been read to
its end: a quiet worker is told from a dead reader because readers say so, not because records come.
"""

from collections.abc import Iterable

import msgspec

ALIVE_S = 10.0  # a worker that has not reported for so long serves nobody any more


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway worker. Times are Unix seconds, 0: never."""

    journal: str  # its name: what reports and readers have in common
    host: str = ""  # for people, as the worker told it
    worker: str = ""
    reported_at: float = 0.0  # when it last told that it lives
    heard_at: float = 0.0  # up to when its journal has been taken in


def heard_until(watched: Iterable[Watched], now: float) -> float:
    """Up to when all that living workers did is known; 0 if no worker lives, or one was never heard."""
    return min((one.heard_at for one in watched if one.reported_at > now - ALIVE_S), default=0.0)


def silent(watched: Iterable[Watched], now: float, patience_s: float) -> list[str]:
    """The living workers whose journals nobody has read to the end for `patience_s`, as WORKER on HOST."""
    return [
        f"{one.worker} on {one.host}"
        for one in sorted(watched, key=lambda w: (w.host, w.worker))
        if one.reported_at > now - ALIVE_S and one.heard_at < now - patience_s
    ]
