"""Whether a replica is left out of its pool, and how it comes back (pure: the time is handed in).

Outlier ejection with a growing pause, on failures in a row, on the share of failures and on slowness, of at most half of a pool: the
outlier detection of Envoy (envoyproxy.io, "Outlier detection"). After the pause one request tries it, the half-open state of a
circuit breaker (Nygard, "Release it!"). A replica that comes back gets its full share little by little (Envoy, "Slow start mode").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from penstock.core.snapshot import HealthPolicy
from penstock.routing.member import Member, Reason

_SAMPLE = 20  # requests that a share of failures needs
_OBSERVATIONS = 10.0  # that a typical time needs
_FADE = 0.8  # of a typical time's observations, from one look to the next
_SLOW_S = 0.1  # less than this above its peers is not slow
_LEAST_WEIGHT = 0.1
_SUSPICIONS: frozenset[Reason] = frozenset({"failures", "failing", "slow"})


def fail(
    policy: HealthPolicy, member: Member, members: Sequence[Member], now: float, *, unreachable: bool
) -> Reason | None:
    """Notes that a request failed on `member`; why it is left out from now on, if it is."""
    member.failed += 1
    member.failures += 1
    if member.out_until and now < member.out_until:
        member.trying = False
        return None  # several that fail together are one sign
    if member.trying:
        reason = member.reason
    elif unreachable:
        reason = "unreachable"
    elif member.failures >= policy.failures and may_suspect(members):
        reason = "failures"
    else:
        return None
    eject(policy, member, reason, now)
    return reason


def eject(policy: HealthPolicy, member: Member, reason: Reason, now: float) -> None:
    """Leaves `member` out for its next pause."""
    pause = min(policy.longest_pause_s, policy.pause_s * 2.0 ** min(member.ejections, 40))
    member.out_until = now + pause
    member.ejections += 1
    member.reason = reason
    member.trying = False
    member.returned = 0.0
    member.whole.count = member.stream.count = 0.0


def may_suspect(members: Sequence[Member]) -> bool:
    """Whether one more replica may be left out on suspicion: at most half of them."""
    out = sum(1 for member in members if member.out_until)
    return out + 1 <= len(members) // 2


def readmit(member: Member, now: float) -> None:
    """`member` works again."""
    member.out_until = 0.0
    member.returned = now
    member.trying = False
    member.failures = member.missed = 0
    member.window = (member.answered, member.failed)


def weight(policy: HealthPolicy, member: Member, now: float) -> float:
    """The part of its share that a replica gets, in (0, 1]: it grows over `slow_start_s` after it has come back."""
    if not member.returned or policy.slow_start_s <= 0.0:
        return 1.0
    return min(1.0, max(_LEAST_WEIGHT, (now - member.returned) / policy.slow_start_s))


def forgive(policy: HealthPolicy, members: Sequence[Member], now: float) -> bool:
    """Forgets the pauses of those that have been well for as long as the last one lasted; whether all members are simply up."""
    calm = True
    for member in members:
        if member.returned:
            pause = min(policy.longest_pause_s, policy.pause_s * 2.0 ** min(member.ejections - 1, 40))
            if now - member.returned >= max(policy.slow_start_s, pause):
                member.returned = 0.0
                member.ejections = 0
        if member.out_until or member.returned:
            calm = False
    return calm


def review(policy: HealthPolicy, members: Sequence[Member], now: float) -> list[tuple[Member, Reason]]:
    """Leaves out those that do far worse than their peers, at most half of the members in all; which, and why.

    - `failing`: at least `failing_share` of at least 20 requests failed, and of the others' not half that share.
    - `slow`: the typical time to the first byte is over `slow_factor` times the median of its peers', of whole answers or of streams.
    """
    found: list[tuple[Member, Reason]] = []
    if len(members) < 2:
        return found
    judged = [member for member in members if not member.out_until]
    for member in judged:
        reason: Reason | None = None
        if _failing(policy, member, judged):
            reason = "failing"
        elif policy.slow_factor > 0.0 and _slow(policy, member, judged):
            reason = "slow"
        if reason is not None and may_suspect(members):
            eject(policy, member, reason, now)
            found.append((member, reason))
    for member in members:
        if sum(_recent(member)) >= _SAMPLE:
            member.window = (member.answered, member.failed)
        member.whole.count *= _FADE
        member.stream.count *= _FADE
    return found


def _recent(member: Member) -> tuple[int, int]:
    answered, failed = member.window
    return member.answered - answered, member.failed - failed


def _failing(policy: HealthPolicy, member: Member, members: Sequence[Member]) -> bool:
    answered, failed = _recent(member)
    asked = answered + failed
    if asked < _SAMPLE or failed < policy.failing_share * asked:
        return False
    peers = [_recent(one) for one in members if one is not member]
    asked_of_peers = sum(map(sum, peers))
    return asked_of_peers >= _SAMPLE and 2 * sum(lost for _, lost in peers) / asked_of_peers <= failed / asked


def _slow(policy: HealthPolicy, member: Member, members: Sequence[Member]) -> bool:
    for kind in ("whole", "stream"):
        own = getattr(member, kind)
        if own.count < _OBSERVATIONS:
            continue
        peers = [getattr(one, kind) for one in members if one is not member]
        known = [math.exp(one.log_s) for one in peers if one.count >= _OBSERVATIONS]
        if known:
            usual, took = median(known), math.exp(own.log_s)
            if took > policy.slow_factor * usual and took > usual + _SLOW_S:
                return True
    return False
