"""Which replica of a pool answers: the better of two at random, and none that has just failed to connect.

Two choices: Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10), 2001. Ejection with a growing
pause and one trial request after it: the outlier ejection of Envoy's documentation, with the half-open state of a circuit breaker.
"""

from collections.abc import Collection

import msgspec

from penstock.core.snapshot import Pool, Replica


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """When a replica is left out.

    After `failures` in a row it gets nothing for `pause_s` seconds, doubled each time until `longest_pause_s`; then one request tries it.
    """

    failures: int = 2
    pause_s: float = 0.5
    longest_pause_s: float = 30.0


DEFAULT_HEALTH = Health()


class _State:
    __slots__ = ("ejections", "failures", "in_flight", "out_until", "replica", "trying")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.in_flight = 0
        self.failures = 0
        self.ejections = 0
        self.out_until = 0.0  # 0: not ejected
        self.trying = False


class Balancer:
    """The state of one pool's replicas in one worker. It keeps no clock and draws no numbers: both are handed in."""

    __slots__ = ("_everyone", "_health", "_max", "_states", "in_flight")

    def __init__(self, pool: Pool, health: Health = DEFAULT_HEALTH) -> None:
        self._health = health
        self._states: dict[str, _State] = {}
        self._everyone: list[_State] = []
        self._max = 1
        self.in_flight = 0
        self.update(pool)

    def update(self, pool: Pool) -> None:
        """Take the replicas of a new Snapshot; those that stay keep what is known of them, unless their address changed."""
        states: dict[str, _State] = {}
        for replica in pool.replicas:
            state = self._states.get(replica.id)
            if state is None or state.replica.url != replica.url:
                state = _State(replica)
            state.replica = replica
            states[replica.id] = state
        self._states = states
        self._everyone = list(states.values())
        self._max = pool.max_in_flight

    def pick(self, now: float, draw: float, exclude: Collection[str] = ()) -> Replica | None:
        """The replica for one request, or None if none can take it now.

        Of two different replicas drawn at random, the one with fewer requests in flight. A replica whose pause is over is tried first, by
        one request at a time. While all that are left are in their pause, the one that comes back soonest is tried all the same: a
        refused connection costs less than a refused request, and a lone replica that is back serves at once.

        Args:
            now: seconds of any clock that never goes back, the same for all calls.
            draw: uniform in [0, 1).
            exclude: ids of replicas that this request has failed on.
        """
        most = self._max
        candidates: list[_State] = []
        last: _State | None = None
        for state in self._everyone:
            if state.in_flight >= most:
                continue
            if exclude and state.replica.id in exclude:
                continue
            if state.out_until:
                if now < state.out_until or state.trying:
                    if last is None or state.out_until < last.out_until:
                        last = state
                    continue
                state.trying = True
                return state.replica
            candidates.append(state)
        count = len(candidates)
        if count == 0:
            return last.replica if last is not None else None
        if count == 1:
            return candidates[0].replica
        pair = int(draw * count * (count - 1))
        first, second = divmod(pair, count - 1)
        if second >= first:
            second += 1
        one, two = candidates[first], candidates[second]
        return one.replica if one.in_flight <= two.in_flight else two.replica

    def began(self, replica: str) -> None:
        """A request went to the replica with this id."""
        self.in_flight += 1
        state = self._states.get(replica)
        if state is not None:
            state.in_flight += 1

    def ended(self, replica: str, ok: bool | None, now: float) -> None:
        """The request that began is over.

        Args:
            replica: its id; one that has left the pool meanwhile is forgotten quietly.
            ok: whether the replica did its part (a client's own error counts as done); False: it could not be connected to, broke off or
                ran into a time limit; None: nothing was learned, as when the client left before.
            now: as for `pick`.
        """
        self.in_flight -= 1
        state = self._states.get(replica)
        if state is None:
            return
        if state.in_flight > 0:
            state.in_flight -= 1
        if ok:
            state.failures = state.ejections = 0
            state.out_until = 0.0
            state.trying = False
        elif ok is None:
            state.trying = False
        else:
            state.failures += 1
            if state.trying or state.failures >= self._health.failures:
                self._eject(state, now)

    def ejected(self, now: float) -> list[str]:
        """The ids of replicas that get nothing now because they failed."""
        return [s.replica.id for s in self._everyone if s.out_until and now < s.out_until]

    def _eject(self, state: _State, now: float) -> None:
        health = self._health
        pause = min(health.longest_pause_s, health.pause_s * 2.0**state.ejections)
        if not (state.out_until and now < state.out_until):  # several that fail together are one sign
            state.out_until = now + pause
            state.ejections += 1
        state.trying = False
