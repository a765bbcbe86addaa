"""Sessions: which requests belong together, whoever's they are. The words that `docs/metrics.md` defines, as a rule (pure)."""

import msgspec

IDLE_S = 1800.0  # a pause longer than this ends a session


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """The newest session of a visitor: its first and latest request, how many it has had, and where it began."""

    began: float
    last: float
    requests: int
    route: str
    version: str


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """What one more request adds to the figures of the time and place at which its session began."""

    at: float
    route: str
    version: str
    sessions: int = 0
    engaged: int = 0
    requests: int = 1
    milliseconds: int = 0


def follow(visit: Visit | None, at: float, route: str, version: str) -> tuple[Visit, Gain]:
    """The visitor's newest session after an answered request at `at` (Unix seconds), and what the request adds.

    Records come nearly in order. One that is more than `IDLE_S` older than the newest session is a session of its own.
    """
    if visit is None or at > visit.last + IDLE_S:
        return (
            Visit(began=at, last=at, requests=1, route=route, version=version),
            Gain(at=at, route=route, version=version, sessions=1),
        )
    if at < visit.began - IDLE_S:
        return visit, Gain(at=at, route=route, version=version, sessions=1)
    longer = max(0.0, at - visit.last) + max(0.0, visit.began - at)
    grown = msgspec.structs.replace(
        visit, began=min(visit.began, at), last=max(visit.last, at), requests=visit.requests + 1
    )
    gain = Gain(
        at=visit.began,
        route=visit.route,
        version=visit.version,
        engaged=int(visit.requests == 1),
        milliseconds=round(longer * 1000),
    )
    return grown, gain
