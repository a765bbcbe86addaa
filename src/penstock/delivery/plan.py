"""What to do next so that the replicas that run become those that are wanted: `plan(desired, observed, now) -> actions`."""

import msgspec

from penstock.delivery.pools import WantedPool

GRACE_S = 2.0  # between taking a replica out of Snapshots and stopping it: gateways have let go of it by then
UNREADY_S = 10.0  # after this a replica that does not answer is taken out, if its pool has another
START_S = 900.0  # after this a revision whose replicas are not ready is given up
RESTARTS = 3  # a replica that died this often before it was ever ready will not be


class SeenReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that the runtime knows."""

    id: str
    url: str
    ready: bool = False  # it said so itself, now
    broken: bool = False  # the runtime has given it up
    restarts: int = 0
    unready_since: float = 0.0  # Unix seconds; of interest while it is not ready


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A revision that goes live as soon as its pool is ready."""

    revision: str
    pool: str
    since: float


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted."""

    pools: tuple[WantedPool, ...] = ()
    pending: tuple[Pending, ...] = ()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What is there."""

    replicas: tuple[SeenReplica, ...] = ()
    published: dict[str, str] = {}  # id -> url, as Snapshots have it
    released: dict[str, float] = {}  # id -> when it was taken out of Snapshots, Unix seconds
    busy: frozenset[str] = frozenset()  # being started or stopped at this moment


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run a replica."""

    id: str
    pool: str


class Publish(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let gateways send requests to a replica."""

    id: str
    pool: str
    url: str


class Unpublish(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let gateways send no more requests to a replica."""

    id: str


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Drain and end a replica."""

    id: str


class GoLive(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Serve a revision."""

    revision: str


class GiveUp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A revision's replicas will not be ready."""

    revision: str
    detail: str


Action = Start | Publish | Unpublish | Stop | GoLive | GiveUp


def plan(desired: Desired, observed: Observed, now: float) -> list[Action]:
    """The next actions, in the order in which to do them; none when all is as it should be.

    A replica that its pool no longer wants stays in Snapshots until one that it wants is ready.

    Replicas that are only to be kept warm are started once the others are ready, so that these load first. A replica is published only once it says that it is ready; one that is not wanted any more is first taken out of Snapshots, and
    stopped `GRACE_S` later. A revision goes live when every replica that its pool wants is ready.
    """
    wanted = {pool.replica(i): pool.name for pool in desired.pools for i in range(pool.replicas)}
    seen = {replica.id: replica for replica in observed.replicas}
    actions: list[Action] = []
    urgent = {pool.name for pool in desired.pools if pool.urgent}
    loading = any(_loads(seen.get(identity)) for identity, pool in wanted.items() if pool in urgent)
    for identity, pool in wanted.items():
        replica = seen.get(identity)
        if replica is None and identity not in observed.busy and (pool in urgent or not loading):
            actions.append(Start(id=identity, pool=pool))
        elif replica is not None and replica.ready and observed.published.get(identity) != replica.url:
            actions.append(Publish(id=identity, pool=pool, url=replica.url))
    actions.extend(
        Unpublish(id=identity)
        for identity in observed.published
        if identity not in seen
        or (
            _replaced(identity, wanted, seen)
            if identity not in wanted
            else _hung(identity, wanted, seen, observed, now)
        )
    )
    for identity in seen:
        if identity in wanted or identity in observed.published or identity in observed.busy:
            continue
        if now - observed.released.get(identity, 0.0) >= GRACE_S:
            actions.append(Stop(id=identity))
    for pending in desired.pending:
        actions.extend(_decide(pending, wanted, seen, now))
    return actions


def _loads(replica: SeenReplica | None) -> bool:
    """Whether a replica that is wanted is still on its way to be ready; one that will not be holds nobody up."""
    return replica is None or not (replica.ready or replica.broken or replica.restarts >= RESTARTS)


def _replaced(identity: str, wanted: dict[str, str], seen: dict[str, SeenReplica]) -> bool:
    """Whether nothing is lost when a replica that is not wanted is taken out."""
    pool = identity.rpartition("-")[0]
    others = [other for other, name in wanted.items() if name == pool]
    return not others or any(other in seen and seen[other].ready for other in others)


def _hung(identity: str, wanted: dict[str, str], seen: dict[str, SeenReplica], observed: Observed, now: float) -> bool:
    replica = seen[identity]
    if replica.ready or now - replica.unready_since < UNREADY_S:
        return False
    return any(
        other != identity and wanted.get(other) == wanted[identity] and other in seen and seen[other].ready
        for other in observed.published
    )


def _decide(pending: Pending, wanted: dict[str, str], seen: dict[str, SeenReplica], now: float) -> list[Action]:
    mine = [identity for identity, pool in wanted.items() if pool == pending.pool]
    there = [seen[identity] for identity in mine if identity in seen]
    if mine and len(there) == len(mine) and all(replica.ready for replica in there):
        return [GoLive(revision=pending.revision)]
    dead = [r for r in there if not r.ready and (r.broken or r.restarts >= RESTARTS)]
    if dead:
        return [
            GiveUp(revision=pending.revision, detail=f"The replica {dead[0].id} does not stay up: its log says why.")
        ]
    if now - pending.since > START_S:
        return [GiveUp(revision=pending.revision, detail=f"Its replicas were not ready within {START_S:.0f} s.")]
    return []
