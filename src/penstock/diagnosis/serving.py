"""Those who answer, and those who ask: replicas, queues, limits, failures, prices."""

from collections.abc import Iterable, Iterator

from penstock.diagnosis.cause import Cause
from penstock.diagnosis.seen import Group, Machine, ReplicaSeen, Seen

_FEW = 3  # requests that one sign needs
_SHARE = 0.1  # of a tenant's or pool's requests
LIMITED = frozenset({"rate_limit_exceeded", "concurrency_limit_exceeded", "insufficient_quota"})
CROWDED = frozenset({"queue_full", "queue_share", "queue_hopeless", "queue_timeout", "engine_busy"})
UNKNOWN = frozenset({"invalid_api_key", "expired_api_key", "missing_api_key"})
_FAILING = frozenset({"failures", "failing", "probe"})


def judge(seen: Seen) -> Iterator[Cause]:
    """What is wrong between those who ask and those who answer."""
    machine = seen.machine
    if machine is not None:
        yield from _pools(machine)
        yield from _ledger(machine)
    groups = seen.traffic.groups
    yield from _limits(groups)
    yield from _keys(groups)
    yield from _queues(machine, groups)
    yield from _errors(groups)
    yield from _prices(groups)


def _pools(machine: Machine) -> Iterator[Cause]:
    by_pool: dict[str, list[ReplicaSeen]] = {}
    for one in machine.replicas:
        by_pool.setdefault(one.pool, []).append(one)
    for pool, members in sorted(by_pool.items()):
        away = [one for one in members if one.dialled]
        if len(away) == len(members):
            ours = all(one.ours for one in members)
            yield Cause(
                name="pool_unreachable",
                subject=pool,
                state="wrong",
                likelihood=0.9,
                says=f"No replica of the pool {pool} can be reached"
                + (": its engines do not answer." if ours else ": the address is wrong, or the server is down."),
                evidence=tuple(f"{one.url}: {one.dialled}." for one in away[:5]),
                command="tail the engines' logs in DATA/logs"
                if ours
                else f"penstock apply -f FILE, with the right addresses in the Pool {pool}",
                runbook="runbooks/pool-down.md",
            )
        for one in members:
            yield from _replica(one, alone=len(away) == len(members))


def _replica(one: ReplicaSeen, *, alone: bool) -> Iterator[Cause]:
    name = f"{one.pool} {one.id}"
    why = ", ".join(f"{reason} {count} times" for reason, count in sorted(one.ejections.items()) if count)
    told = (f"{one.out} of {one.workers} workers leave it out" + (f"; left out so far: {why}." if why else "."),)
    if one.dialled and not alone:
        yield Cause(
            name="replica_unreachable",
            subject=name,
            state="wrong",
            likelihood=0.8,
            says=f"The replica {one.id} of {one.pool} cannot be reached.",
            evidence=(f"{one.url}: {one.dialled}.", *told),
            command=f"curl -i {one.url}/health",
            runbook="runbooks/replica-out.md",
        )
    elif one.ejections.get("slow"):
        yield Cause(
            name="replica_slow",
            subject=name,
            state="wrong",
            likelihood=0.8 if one.out else 0.7,
            says=f"The replica {one.id} of {one.pool} is far slower than its peers.",
            evidence=told,
            command=f"see what else runs beside {one.url}; 'penstock query @latency' compares replicas",
            runbook="runbooks/replica-out.md",
        )
    elif one.out and not one.dialled and _FAILING & one.ejections.keys():
        yield Cause(
            name="replica_failing",
            subject=name,
            state="wrong",
            likelihood=0.75,
            says=f"The replica {one.id} of {one.pool} answers, and fails.",
            evidence=told,
            command=f"tail the log of the server at {one.url}; penstock query @errors",
            runbook="runbooks/replica-out.md",
        )


def _ledger(machine: Machine) -> Iterator[Cause]:
    if machine.ledgerless:
        where = "the Redis of gateway.redis_url" if machine.shared_ledger else "the supervisor's ledger.sock"
        yield Cause(
            name="ledger_down",
            subject="ledger",
            state="wrong",
            likelihood=0.87,
            says="Gateways cannot ask the ledger of limits.",
            evidence=(f"{', '.join(machine.ledgerless)}: penstock_ledger_up is 0; the ledger is {where}.",),
            command="redis-cli -u URL ping" if machine.shared_ledger else f"penstock up --data {machine.data}",
            runbook="runbooks/ledger-down.md",
        )


def _limits(groups: Iterable[Group]) -> Iterator[Cause]:
    for tenant, mine in _by(groups, "tenant"):
        refused, share = _part(mine, LIMITED)
        if refused >= _FEW and share >= _SHARE:
            codes = _codes(mine, LIMITED)
            keys = sorted({one.key for one in mine if one.error in LIMITED})
            yield Cause(
                name="limits_exhausted",
                subject=tenant or "-",
                state="wrong",
                likelihood=min(0.9, 0.6 + 0.35 * share),
                says=f"The tenant {tenant or '-'} is at its limits: {refused} of its requests got 429.",
                evidence=(f"{codes}, which is {share:.0%} of its requests; keys {', '.join(keys[:5])}.",),
                command=f"penstock tenants list; penstock tenants update {tenant} --requests-per-minute N",
            )


def _keys(groups: Iterable[Group]) -> Iterator[Cause]:
    every = list(groups)
    refused, share = _part(every, UNKNOWN)
    if refused >= _FEW and share >= _SHARE:
        yield Cause(
            name="keys_refused",
            subject="keys",
            state="wrong",
            likelihood=min(0.85, 0.45 + 0.4 * share),
            says=f"{refused} requests came with a key that was revoked, has ended, or never was.",
            evidence=(f"{_codes(every, UNKNOWN)}, which is {share:.0%} of all requests.",),
            command="penstock keys list  (revoked ones have a time; give the client a new one: penstock keys create --tenant T)",
            runbook="runbooks/key-expiry.md",
        )


def _queues(machine: Machine | None, groups: Iterable[Group]) -> Iterator[Cause]:
    waiting = {one.pool: one.waiting for one in machine.queues} if machine is not None else {}
    pools = dict(_by(groups, "pool"))
    for pool in sorted(waiting.keys() | pools.keys()):
        refused, share = _part(pools.get(pool, ()), CROWDED)
        if refused < _FEW or share < _SHARE:
            continue
        yield Cause(
            name="pool_overloaded",
            subject=pool or "-",
            state="wrong",
            likelihood=min(0.88, 0.6 + 0.3 * share),
            says=f"The pool {pool or '-'} has more requests than it can answer.",
            evidence=(
                f"{_codes(pools.get(pool, ()), CROWDED)}, which is {share:.0%} of its requests.",
                f"{waiting.get(pool, 0)} wait now.",
            ),
            command="more replicas, or fewer requests: limits of tenants (penstock tenants list), max_in_flight of the Pool",
            runbook="runbooks/queue.md",
        )


def _errors(groups: Iterable[Group]) -> Iterator[Cause]:
    for pool, mine in _by(groups, "pool"):
        codes = frozenset(one.error for one in mine if one.outcome in {"error", "truncated", "crashed"}) - CROWDED
        failed, share = _part(mine, codes)
        if failed >= _FEW and share >= 0.02:
            yield Cause(
                name="pool_errors",
                subject=pool or "-",
                state="wrong",
                likelihood=min(0.7, 0.4 + 0.4 * share),
                says=f"Requests {'to the pool ' + pool if pool else 'that reach no pool'} fail.",
                evidence=(f"{_codes(mine, codes)}, which is {share:.0%} of them.",),
                command="penstock query @errors",
                runbook="runbooks/availability-burn.md",
            )


def _prices(groups: Iterable[Group]) -> Iterator[Cause]:
    for pool, mine in _by(groups, "pool"):
        answered = [one for one in mine if one.outcome == "ok" and one.tokens]
        count, tokens = sum(one.count for one in answered), sum(one.tokens for one in answered)
        if pool and count >= _FEW and not any(one.cost_nanousd for one in mine):
            yield Cause(
                name="price_missing",
                subject=pool,
                state="warning",
                likelihood=0.25,
                says=f"The pool {pool} has no price: its requests count as free, and limits on money do not hold them.",
                evidence=(f"{count} answers with {tokens} tokens cost nothing.",),
                command=f"penstock apply -f FILE, with price: {{prompt: USD, completion: USD}} (of a million tokens) in the Pool {pool}",
                runbook="runbooks/cost-anomaly.md",
            )


def _by(groups: Iterable[Group], field: str) -> list[tuple[str, tuple[Group, ...]]]:
    found: dict[str, list[Group]] = {}
    for one in groups:
        found.setdefault(getattr(one, field), []).append(one)
    return [(name, tuple(mine)) for name, mine in sorted(found.items())]


def _part(groups: Iterable[Group], codes: frozenset[str]) -> tuple[int, float]:
    """How many requests ended with one of `codes`, and which share of all that is."""
    every = list(groups)
    total = sum(one.count for one in every)
    found = sum(one.count for one in every if one.error in codes)
    return found, found / total if total else 0.0


def _codes(groups: Iterable[Group], codes: frozenset[str]) -> str:
    counts: dict[str, int] = {}
    for one in groups:
        if one.error in codes:
            counts[one.error] = counts.get(one.error, 0) + one.count
    return ", ".join(f"{name} {count} times" for name, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
