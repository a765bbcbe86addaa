"""A Snapshot made quick to ask: hashes to callers, names to routes, everything that a request needs worked out once."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from xxhash import xxh3_64_intdigest

from penstock.access.leases import Holder
from penstock.core.digests import sha256_digest
from penstock.core.errors import PenstockError
from penstock.core.reports import Fault, FaultKind
from penstock.core.snapshot import (
    Arm,
    CachePolicy,
    Cascade,
    KeyEntry,
    LedgerDown,
    Limits,
    Policy,
    Pool,
    Route,
    SemanticPolicy,
    Snapshot,
    TenantEntry,
)
from penstock.experiments.assignment import Assigner, compile_experiment
from penstock.guard.masking import Masker
from penstock.guard.policies import compile_policy
from penstock.net.client import Origin, Timeouts, parse_origin
from penstock.routing.agreement import same_words
from penstock.routing.cascade import Judge
from penstock.routing.choose import Chooser
from penstock.wire.phases import ASK
from penstock.wire.quality import asking

UNUSABLE = (PenstockError, ValueError, LookupError, ArithmeticError)  # what making sense of an entry may raise
_HEAD = b"content-type: application/json\r\n"
_ID = b"x-penstock-request-id: "
_ILLEGAL = str.maketrans({"\r": None, "\n": None})


class Caller:
    """A key and its tenant, as one request needs them."""

    __slots__ = ("by_model", "down", "expires_at", "holder", "key", "limited", "models", "seed", "tenant")

    def __init__(self, key: KeyEntry, tenant: TenantEntry) -> None:
        self.key = key
        self.tenant = tenant
        self.seed = xxh3_64_intdigest(tenant.name.encode())  # of the prompts that replicas are remembered by
        self.expires_at = key.expires_at if key.expires_at is not None else float("inf")
        self.by_model = bool(key.model_limits or tenant.model_limits)
        self.limited = self.by_model or key.limits != Limits() or tenant.limits != Limits()
        self.holder: Holder | None = None  # its accounts, from its first request on
        self.down: LedgerDown | None = None  # what its policy says of an absent ledger
        allowed: frozenset[str] | None = None
        for models in (key.models, tenant.models):
            if models is not None:
                allowed = frozenset(models) if allowed is None else allowed & frozenset(models)
        self.models = allowed  # None: all

    def may_call(self, route: str) -> bool:
        """Whether the caller may use the route of this name."""
        return self.models is None or route in self.models


class Rules:
    """A policy, compiled. `guard` is None if it has no content rules; `mark` changes whenever the policy does.

    `fault` tells why it cannot be used, or is "": then what it is for must not be served.
    """

    __slots__ = ("captures", "fault", "guard", "mark", "masker", "policy", "screens_input", "screens_output", "strict")

    def __init__(self, policy: Policy) -> None:
        guard = None
        self.fault = ""
        try:
            guard = compile_policy(policy)
        except UNUSABLE as error:
            self.fault = str(error)
        self.policy = policy
        self.mark = sha256_digest(msgspec.json.encode(policy))
        self.strict = policy.audit == "strict"
        self.captures = policy.capture != "none" and policy.capture_share > 0
        self.masker = Masker(policy.capture_mask) if policy.capture != "full" else None  # of all texts that are kept
        self.guard = guard
        self.screens_input = guard is not None and guard.has_input
        self.screens_output = guard is not None and guard.has_output


class PoolEntry:
    """A pool of the Snapshot with its replicas' addresses parsed.

    Replicas that cannot be dialled are left out, and all of them where a bound makes no sense; `fault` tells why, or is "".
    """

    __slots__ = ("examine", "fault", "head", "origins", "pool", "routes", "salted", "tells", "timeouts")

    def __init__(self, pool: Pool) -> None:
        self.origins: dict[str, Origin] = {}
        fault = _out_of_range(pool)
        if not fault:
            for replica in pool.replicas:
                try:
                    self.origins[replica.id] = parse_origin(replica.url)
                except UNUSABLE as error:
                    fault = f"the replica {replica.id}: {error}"
        if fault:
            able = tuple(replica for replica in pool.replicas if replica.id in self.origins)
            pool = msgspec.structs.replace(pool, replicas=able)
        self.pool = pool
        self.fault = fault
        self.tells = pool.dialect == "penstock"  # its engines tell how long their phases took
        self.head = _HEAD + ASK + _ID if self.tells else _HEAD + _ID  # header lines of all requests, up to their id
        self.examine = b""  # the header line that has its engines tell the quality of an answer
        if pool.quality.share and self.tells:
            self.examine = _examine(pool)
        self.routes: set[str] = set()  # that lead to it, not counting those that only fall back to it
        self.salted = pool.dialect == "vllm" and pool.prefix_cache == "separate"
        self.timeouts = Timeouts(
            connect_s=pool.connect_timeout_s,
            first_byte_s=pool.first_byte_timeout_s,
            stall_s=pool.stall_timeout_s,
            answer_s=pool.answer_timeout_s,
        )


def _examine(pool: Pool) -> bytes:
    try:
        return asking(pool.quality.refusals)
    except ValueError:
        return asking(())


def _out_of_range(pool: Pool) -> str:
    """Which bound of the pool makes no sense, or ""."""
    queue = pool.queue
    if pool.max_in_flight < 1:
        return f"max_in_flight is {pool.max_in_flight}"
    if min(pool.max_waiting, pool.max_wait_s, queue.input_cost, queue.output_cost, queue.headroom) < 0:
        return "a bound of its queue is negative"
    if min(pool.connect_timeout_s, pool.first_byte_timeout_s, pool.stall_timeout_s) <= 0:
        return "a time limit is not above 0"
    return ""


class Leg:
    """One way that a route leads: a pool, or an arm of its experiment."""

    __slots__ = ("arm", "cascade", "edits", "entry", "lines", "name", "names", "rules", "weight")

    def __init__(self, route: Route, entry: PoolEntry, weight: float, arm: Arm | None, rules: Rules | None) -> None:
        self.entry = entry
        self.weight = weight
        self.arm = arm
        self.name = arm.name if arm is not None else ""
        self.cascade: CascadeEntry | None = None  # of an arm: who is asked before it
        self.names: dict[tuple[str, str, str, bool, str], bytes] = {}  # what keys of the cache begin with
        self.rules = rules
        self.edits = arm is not None and (bool(arm.params) or arm.system is not None)
        experiment = route.experiment.name if route.experiment is not None else ""
        label = f"{experiment}/{self.name}" if arm is not None else ""
        self.lines = (
            f"x-penstock-version: {entry.pool.version}\r\nx-penstock-digest: {entry.pool.digest}\r\n"
            f"x-penstock-arm: {label.translate(_ILLEGAL)}\r\n"
        ).encode()


class CascadeEntry:
    """A cascade with its two legs. `mark` tells it from any other that begins with the same weights."""

    __slots__ = ("first", "judge", "mark", "policy", "then")

    def __init__(self, policy: Cascade, first: Leg, then: Leg) -> None:
        self.policy = policy
        self.first = first
        self.then = then
        self.judge = Judge(policy)
        pool = then.entry.pool
        self.mark = sha256_digest(msgspec.json.encode((policy, pool.build or pool.digest)))


_FAILURES = 3
_LONGEST_REST_S = 30.0


class SemanticEntry:
    """A policy of the semantic cache, with the pool that makes its vectors.

    Attributes:
        failures: vectors in a row that did not come.
        rests_until: the pool is not asked before, monotonic seconds.
    """

    __slots__ = ("entry", "failures", "policy", "rests_until", "same")

    def __init__(self, policy: SemanticPolicy, entry: PoolEntry) -> None:
        self.policy = policy
        self.entry = entry
        self.same = same_words(policy.same_words)
        self.failures = 0
        self.rests_until = 0.0

    def told(self, now: float, *, ok: bool) -> None:
        """A vector has come, or not: after a few that did not, the pool is left alone, for longer each time."""
        self.failures = 0 if ok else self.failures + 1
        if self.failures >= _FAILURES:
            self.rests_until = now + min(_LONGEST_REST_S, 2.0 ** (self.failures - _FAILURES))


class RouteEntry:
    """A route with its legs."""

    __slots__ = (
        "arms",
        "assigner",
        "cache",
        "cascade",
        "chooser",
        "chosen",
        "coalesces",
        "fallbacks",
        "holders",
        "legs",
        "limited",
        "pools",
        "route",
        "semantic",
        "shaped",
    )

    def __init__(
        self,
        route: Route,
        legs: tuple[Leg, ...],
        arms: dict[str, Leg],
        assigner: Assigner | None,
        chosen: dict[str, Leg],
        cascade: CascadeEntry | None,
        fallbacks: tuple[Leg, ...],
        semantic: SemanticEntry | None,
    ) -> None:
        self.route = route
        self.semantic = semantic
        self.fallbacks = fallbacks
        self.limited = route.limits != Limits()
        self.holders: dict[Caller, Holder] = {}  # of callers that are limited on this route
        self.chooser = Chooser(route.choose) if route.choose else None
        self.chosen = chosen  # by the pool that a rule names
        self.cascade = cascade
        self.coalesces = route.coalesce
        self.shaped = route.trim is not None or route.max_tokens is not None
        self.legs = legs  # without experiment
        self.pools = {leg.entry.pool.name: leg for leg in legs}
        self.arms = arms  # by name
        self.assigner = assigner
        self.cache: CachePolicy | None = route.cache if route.cache.mode != "off" else None


class Index:
    """All of one Snapshot. What cannot be used of it fails closed alone, and is told in `faults`; all else is served.

    Attributes:
        lost_keys: why keys that are known cannot be used, by hash.
        lost_routes: why routes cannot be used, by name.
        private: routes that are for one tenant alone, by name.
    """

    __slots__ = (
        "callers",
        "faults",
        "generation",
        "lost_keys",
        "lost_routes",
        "pools",
        "private",
        "routes",
        "rules",
        "snapshot",
    )

    def __init__(self, snapshot: Snapshot, previous: Index | None = None) -> None:
        """What has not changed since `previous` is taken over from it: compiled rules above all."""
        self.snapshot = snapshot
        self.generation = snapshot.generation
        self.faults: list[Fault] = []
        compiled = previous.rules if previous is not None else {}
        self.rules: dict[str, Rules] = {}
        for policy in snapshot.policies:
            rules = compiled.get(policy.name)
            if rules is None or rules.policy != policy:
                rules = Rules(policy)
            self.rules[policy.name] = rules
            if rules.fault:
                self._fault("policy", policy.name, rules.fault)
        self.callers: dict[str, Caller] = {}
        self.lost_keys: dict[str, str] = {}
        self._take_keys(snapshot, previous.callers if previous is not None else {})
        self.pools = {pool.name: PoolEntry(pool) for pool in snapshot.pools}
        for name, entry in self.pools.items():
            if entry.fault:
                self._fault("pool", name, entry.fault)
        self.routes: dict[str, RouteEntry] = {}
        self.private: dict[str, RouteEntry] = {}
        self.lost_routes: dict[str, str] = {}
        for route in snapshot.routes:
            try:
                (self.private if route.tenant else self.routes)[route.name] = self._route(route)
            except UNUSABLE as error:
                self.lost_routes[route.name] = str(error)
                self._fault("route", route.name, str(error))
        for way in self.routes.values():
            both = () if way.cascade is None else (way.cascade.first, way.cascade.then)
            firsts = [leg.cascade.first for leg in way.arms.values() if leg.cascade is not None]
            for leg in (*way.legs, *way.arms.values(), *way.chosen.values(), *both, *firsts):
                leg.entry.routes.add(way.route.name)

    def _fault(self, kind: FaultKind, name: str, why: str) -> None:
        self.faults.append(Fault(kind=kind, name=name, why=why))

    def _take_keys(self, snapshot: Snapshot, known: Mapping[str, Caller]) -> None:
        tenants = {tenant.name: tenant for tenant in snapshot.tenants}
        lost_tenants = {
            name: f"its policy {tenant.policy!r} is not there"
            for name, tenant in tenants.items()
            if tenant.policy is not None and tenant.policy not in self.rules
        }
        for name, why in lost_tenants.items():
            self._fault("tenant", name, why)
        for key in snapshot.keys:
            tenant = tenants.get(key.tenant)
            if tenant is None:
                self._lose_key(key, f"its tenant {key.tenant!r} is not there")
            elif tenant.name in lost_tenants:
                self.lost_keys[key.hash] = lost_tenants[tenant.name]
            elif key.hash in self.callers or key.hash in self.lost_keys:
                self.callers.pop(key.hash, None)
                self._lose_key(key, "another key has the same text")
            else:
                caller = known.get(key.hash)
                if caller is None or caller.key is not key or caller.tenant is not tenant:
                    caller = Caller(key, tenant)
                own = self.rules.get(tenant.policy or "default")
                caller.down = own.policy.ledger_down if own is not None else None
                self.callers[key.hash] = caller

    def _lose_key(self, key: KeyEntry, why: str) -> None:
        self.lost_keys[key.hash] = why
        self._fault("key", key.id, why)

    def rules_for(self, name: str | None) -> Rules | None:
        """The rules of the policy `name`; of the policy `default` if no name is given.

        Raises:
            ValueError: if a policy is named that is not there.
        """
        if name is None:
            return self.rules.get("default")
        if name not in self.rules:
            raise ValueError(f"the policy {name!r} is not there")
        return self.rules[name]

    def _pool(self, name: str, route: str) -> PoolEntry:
        entry = self.pools.get(name)
        if entry is None:
            raise ValueError(f"the route {route!r} leads to the pool {name!r}, which is not there")
        return entry

    def _route(self, route: Route) -> RouteEntry:
        named = self.rules_for(route.policy) if route.policy is not None else None

        def leg(pool: str, weight: float = 1.0) -> Leg:
            return Leg(route, self._pool(pool, route.name), weight, None, named)

        legs = tuple(leg(target.pool, target.weight) for target in route.to)
        chosen = {rule.pool: leg(rule.pool) for rule in route.choose}
        plan = route.cascade
        cascade = CascadeEntry(plan, leg(plan.first), leg(plan.then)) if plan is not None else None
        fallbacks = tuple(leg(pool) for pool in route.fallback)
        meaning = route.cache.semantic if route.cache.mode == "semantic" else None
        semantic = SemanticEntry(meaning, self._pool(meaning.pool, route.name)) if meaning is not None else None
        if route.experiment is None:
            return RouteEntry(route, legs, {}, None, chosen, cascade, fallbacks, semantic)
        arms = {
            arm.name: Leg(
                route,
                self._pool(arm.pool, route.name),
                arm.weight,
                arm,
                self.rules_for(arm.policy) if arm.policy is not None else named,
            )
            for arm in route.experiment.arms
        }
        for way in arms.values():
            plan = way.arm.cascade if way.arm is not None else None
            if plan is not None:
                first = Leg(route, self._pool(plan.first, route.name), way.weight, way.arm, way.rules)
                way.cascade = CascadeEntry(plan, first, way)
        return RouteEntry(route, legs, arms, compile_experiment(route.experiment), chosen, cascade, fallbacks, semantic)

    def ready(self) -> bool:
        """Whether some route has a replica, or there is no route at all."""
        if not self.routes:
            return True
        return any(leg.entry.origins for entry in self.routes.values() for leg in (*entry.legs, *entry.arms.values()))


_decode = msgspec.json.Decoder(Snapshot).decode


def decode_snapshot(data: bytes) -> Snapshot:
    """The Snapshot written as JSON.

    Raises:
        ValueError: if it is none.
    """
    return _decode(data)
