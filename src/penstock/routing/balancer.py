"""Which replica of a pool answers: where the prompt's beginning is known, as far as load allows; else the better of two.

Bounded load: Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018: nobody takes more than `load_factor`
times the mean. Two choices: Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10), 2001. Sessions:
Thaler, Ravishankar, "Using name-based mappings to increase hit rates" (rendezvous hashing), IEEE/ACM ToN 6(1), 1998.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from xxhash import xxh3_64_intdigest

from penstock.core.snapshot import Pool
from penstock.routing import health
from penstock.routing.affinity import Prefixes
from penstock.routing.budget import hedge_budget, retry_budget
from penstock.routing.member import Member, Reason

_NO_CHAIN: list[int] = []
_FINER = 65536.0  # the lower digits of a draw are a second one


class Balancer:
    """The state of one pool's replicas in one worker. It keeps no clock and draws no numbers: both are handed in.

    Attributes:
        in_flight: requests that run on the pool.
        asked: requests that it has had, further attempts not counted.
        affine, by_prefix, by_session: which affinity has something to decide, if any: none in a pool of one.
        shared: tenants share what engines remember of prompts.
        timed: the time to the first byte is to be told to `ended`.
        retries, hedges: what further attempts may cost.
        near, far: requests that went where their beginning was known, and those that could not for load or health.
        ejections: how often each replica was left out, by its id and the reason.
    """

    __slots__ = (
        "_calm", "_factor", "_members", "_most", "_policy", "_prefixes", "affine", "asked", "by_prefix", "by_session", "ejections",
        "far", "hedges", "in_flight", "near", "retries", "shared", "timed",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._members: list[Member] = []
        self._policy = pool.health
        self._prefixes = Prefixes()
        self.retries = retry_budget(pool.health.retry_share)
        self.hedges = hedge_budget(pool.health.hedge_share)
        self.in_flight = 0
        self.asked = 0
        self.near = 0
        self.far = 0
        self.ejections: dict[tuple[str, Reason], int] = {}
        self.update(pool)

    def update(self, pool: Pool) -> None:
        """Takes the replicas of a new Snapshot; those that stay keep what is known of them, unless their address changed."""
        known = {member.replica.id: member for member in self._members}
        members = []
        for replica in pool.replicas:
            member = known.get(replica.id)
            if member is None or member.replica.url != replica.url:
                member = Member(replica)
            else:
                del known[replica.id]
            member.replica = replica
            members.append(member)
        for member in known.values():
            member.gone = True
        self._members = members
        self._policy = pool.health
        self._most = pool.max_in_flight
        self._factor = pool.load_factor
        self.retries.share = pool.health.retry_share
        self.hedges.share = pool.health.hedge_share
        several = len(members) > 1
        self.by_prefix = several and pool.affinity == "prefix"
        self.shared = pool.prefix_cache == "shared"
        self.by_session = several and pool.affinity == "session"
        self.affine = self.by_prefix or self.by_session
        self.timed = several and pool.health.slow_factor > 0.0
        self._calm = not any(member.out_until or member.returned for member in members)

    @property
    def able(self) -> int:
        """How many are not left out."""
        members = self._members
        return len(members) if self._calm else sum(not member.out_until for member in members)

    @property
    def stranded(self) -> int:
        """How many requests run on members that are left out, while others are not."""
        members = self._members
        if self._calm or not self.able:
            return 0
        return sum(member.in_flight for member in members if member.out_until)

    def knows_other(self, exclude: Collection[str]) -> bool:
        """Whether a member that is not in `exclude` is well, though it may have too much to do."""
        return any(not member.out_until and member.replica.id not in exclude for member in self._members)

    @property
    def members(self) -> Sequence[Member]:
        """Those of the Snapshot in use."""
        return self._members

    def take(
        self,
        now: float,
        draw: float,
        exclude: Collection[str] = (),
        chain: list[int] = _NO_CHAIN,
        session: str = "",
    ) -> Member | None:
        """The replica for one request, which runs on it from now on, until `ended`; None if none can take it now.

        Where all are well: the one that knows the longest beginning of `chain`, or the one that `session` hashes to, unless it
        has `load_factor` times the mean in flight; else, of two different ones drawn at random, the one with fewer in flight.
        A replica whose pause is over is tried first, by one request at a time. While all that are left are in their pause, the
        one that comes back soonest is tried all the same: a refused connection costs less than a refused request, and a lone
        replica that is back serves at once.

        Args:
            now: seconds of any clock that never goes back, the same for all calls.
            draw: uniform in [0, 1).
            exclude: ids of replicas that this request has been sent to before; if there are any, this is a further attempt.
            chain: `prefix_chain` of the prompt, if `by_prefix`.
            session: whose request it is, if `by_session`.
        """
        member: Member | None = None
        if self._calm and not exclude:
            self.asked += 1
            members = self._members
            count = len(members)
            if count == 1:
                member = members[0]
            elif count:
                member = self._among(members, draw, chain, session) if chain or session else _better(members, draw)
            if member is None or member.in_flight >= self._most:
                member = self._search(now, draw, exclude, chain, session)
        else:
            if not exclude:
                self.asked += 1
            member = self._search(now, draw, exclude, chain, session)
        if member is not None:
            self.in_flight += 1
            member.in_flight += 1
        return member

    def ended(self, member: Member, ok: bool | None, now: float, *, unreachable: bool = False) -> None:
        """The request that was given to `member` is over.

        Args:
            member: as `take` gave it.
            ok: whether the replica did its part (a client's own error counts as done); False: it could not be connected to, broke
                off or ran into a time limit; None: nothing was learned, as when the client left before.
            now: as for `take`.
            unreachable: with False: it took no connection.
        """
        self.in_flight -= 1
        member.in_flight -= 1
        if ok:
            member.answered += 1
            if member.failures or member.trying:
                self._recovered(member, now)
        elif ok is None:
            member.trying = False
        else:
            reason = health.fail(self._policy, member, self._members, now, unreachable=unreachable)
            if reason is not None:
                self._count(member, reason)

    def timing(self, member: Member, took_s: float, *, stream: bool) -> None:
        """Notes how long `member` took to the first byte of an answer."""
        (member.stream if stream else member.whole).add(math.log(max(took_s, 1e-4)))

    def review(self, now: float) -> None:
        """Leaves out who does far worse than its peers, and forgets what is long over; to be asked every few seconds."""
        for member, reason in health.review(self._policy, self._members, now):
            self._count(member, reason)
        self._calm = health.forgive(self._policy, self._members, now)

    def due(self, now: float) -> list[Member]:
        """Whom to probe: those that are left out, and those that had no request since the last look."""
        if self._policy.probe_s <= 0.0:
            return []
        due = []
        for member in self._members:
            if now < member.probe_at:
                continue
            asked = member.answered + member.failed
            if member.out_until or (member.in_flight == 0 and member.seen == asked):
                due.append(member)
            member.seen = asked
        return due

    def probed(self, member: Member, ok: bool, now: float, pause_s: float) -> None:
        """What a probe of `member` has shown; it is not probed again for `pause_s`."""
        member.probe_at = now + pause_s
        if ok:
            member.missed = 0
            if member.out_until and member.reason in {"unreachable", "probe"}:
                health.readmit(member, now)
            return
        member.missed += 1
        if not member.out_until and member.missed >= 2 and not member.gone:
            health.eject(self._policy, member, "probe", now)
            self._count(member, "probe")
        if member.out_until:
            member.out_until = max(member.out_until, now + 1.5 * pause_s)

    def _recovered(self, member: Member, now: float) -> None:
        if member.trying:
            health.readmit(member, now)
        member.failures = 0

    def _count(self, member: Member, reason: Reason) -> None:
        self._calm = False
        key = (member.replica.id, reason)
        self.ejections[key] = self.ejections.get(key, 0) + 1

    def _search(
        self, now: float, draw: float, exclude: Collection[str], chain: list[int], session: str
    ) -> Member | None:
        """As `take`, among those that can take it: health, load and `exclude` looked at one by one."""
        policy, most = self._policy, self._most
        finer = draw * _FINER % 1.0
        candidates: list[Member] = []
        last: Member | None = None  # of those in their pause
        ramping: Member | None = None
        for member in self._members:
            if member.in_flight >= most or (exclude and member.replica.id in exclude):
                continue
            if member.out_until:
                if now < member.out_until or member.trying:
                    if last is None or member.out_until < last.out_until:
                        last = member
                    continue
                member.trying = True
                return member
            if member.returned and health.weight(policy, member, now) <= finer:
                ramping = member
                continue
            candidates.append(member)
        if not self._calm:
            self._calm = health.forgive(policy, self._members, now)
        if candidates:
            return self._among(candidates, draw, chain, session)
        if ramping is not None:
            return ramping
        if last is not None:
            last.trying = True
        return last

    def _among(self, members: list[Member], draw: float, chain: list[int], session: str) -> Member:
        """By affinity within the bound, else the better of two."""
        bound = self._factor * (self.in_flight + 1) / len(self._members)
        if chain:
            owner, known = self._prefixes.find(chain)
            if owner is not None and owner.in_flight < bound and (members is self._members or owner in members):
                self.near += 1
                self._prefixes.learn(chain, known, owner)
                return owner
            member = _better(members, draw)
            if owner is not None:
                self.far += 1
                if owner.out_until:
                    known = 0
                if member.in_flight >= bound:
                    member = min(members, key=_load)
            self._prefixes.learn(chain, known, member)
            return member
        if session:
            text = session.encode()
            within = [member for member in members if member.in_flight < bound]
            if within:
                return max(within, key=lambda member: xxh3_64_intdigest(text, member.seed))
        return _better(members, draw)


def _load(member: Member) -> int:
    return member.in_flight


def _better(members: list[Member], draw: float) -> Member:
    """Of two different members drawn at random, the one with fewer requests in flight."""
    count = len(members)
    if count == 1:
        return members[0]
    first, second = divmod(int(draw * count * (count - 1)), count - 1)
    if second >= first:
        second += 1
    one, two = members[first], members[second]
    return one if one.in_flight <= two.in_flight else two
