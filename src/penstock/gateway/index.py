"""A Snapshot made quick to ask: hashes to callers, names to routes, everything that a request needs worked out once."""

from __future__ import annotations

import msgspec
from xxhash import xxh3_64_intdigest

from penstock.access.leases import Holder
from penstock.core.digests import sha256_digest
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
from penstock.guard.policies import compile_policy
from penstock.net.client import Origin, Timeouts, parse_origin
from penstock.routing.agreement import same_words
from penstock.routing.cascade import Judge
from penstock.routing.choose import Chooser

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
    """A policy, compiled. `guard` is None if it has no content rules; `mark` changes whenever the policy does."""

    __slots__ = ("guard", "mark", "policy", "screens_input", "screens_output", "strict")

    def __init__(self, policy: Policy) -> None:
        guard = compile_policy(policy)
        self.policy = policy
        self.mark = sha256_digest(msgspec.json.encode(policy))
        self.strict = policy.audit == "strict"
        self.guard = guard
        self.screens_input = guard is not None and guard.has_input
        self.screens_output = guard is not None and guard.has_output


class PoolEntry:
    """A pool of the Snapshot with its replicas' addresses parsed."""

    __slots__ = ("origins", "pool", "routes", "salted", "timeouts")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.routes: set[str] = set()  # that lead to it, not counting those that only fall back to it
        self.salted = pool.dialect == "vllm" and pool.prefix_cache == "separate"
        self.origins: dict[str, Origin] = {replica.id: parse_origin(replica.url) for replica in pool.replicas}
        self.timeouts = Timeouts(
            connect_s=pool.connect_timeout_s,
            first_byte_s=pool.first_byte_timeout_s,
            stall_s=pool.stall_timeout_s,
            answer_s=pool.answer_timeout_s,
        )


class Leg:
    """One way that a route leads: a pool, or an arm of its experiment."""

    __slots__ = ("arm", "edits", "entry", "lines", "name", "rules", "weight")

    def __init__(self, route: Route, entry: PoolEntry, weight: float, arm: Arm | None, rules: Rules | None) -> None:
        self.entry = entry
        self.weight = weight
        self.arm = arm
        self.name = arm.name if arm is not None else ""
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


class SemanticEntry:
    """A policy of the semantic cache, with the pool that makes its vectors."""

    __slots__ = ("entry", "policy", "same")

    def __init__(self, policy: SemanticPolicy, entry: PoolEntry) -> None:
        self.policy = policy
        self.entry = entry
        self.same = same_words(policy.same_words)


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
    """All of one Snapshot.

    Raises:
        ValueError: if the Snapshot contradicts itself, or
        BadRequest: if a rule or an address is wrong: then it is refused whole, and the old one stays.
    """

    __slots__ = ("callers", "generation", "pools", "routes", "rules", "snapshot")

    def __init__(self, snapshot: Snapshot, previous: Index | None = None) -> None:
        """What has not changed since `previous` is taken over from it: compiled rules above all."""
        self.snapshot = snapshot
        self.generation = snapshot.generation
        tenants = {tenant.name: tenant for tenant in snapshot.tenants}
        compiled = previous.rules if previous is not None else {}
        self.rules: dict[str, Rules] = {}
        for policy in snapshot.policies:
            rules = compiled.get(policy.name)
            self.rules[policy.name] = rules if rules is not None and rules.policy == policy else Rules(policy)
        known = previous.callers if previous is not None else {}
        self.callers: dict[str, Caller] = {}
        for key in snapshot.keys:
            tenant = tenants.get(key.tenant)
            if tenant is None:
                raise ValueError(f"the key {key.id} belongs to the tenant {key.tenant!r}, which is not there")
            caller = known.get(key.hash)
            if caller is None or caller.key is not key or caller.tenant is not tenant:
                caller = Caller(key, tenant)
            own = self.rules.get(tenant.policy or "default")
            caller.down = own.policy.ledger_down if own is not None else None
            self.callers[key.hash] = caller
        self.pools = {pool.name: PoolEntry(pool) for pool in snapshot.pools}
        self.routes = {route.name: self._route(route) for route in snapshot.routes}
        for entry in self.routes.values():
            for leg in (*entry.legs, *entry.arms.values(), *entry.chosen.values()):
                leg.entry.routes.add(entry.route.name)

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
