"""From the state of the database to the Snapshot that gateways serve from, and to the pools that must run (pure)."""

import msgspec

from penstock.control.deploy.state import Deployment, State
from penstock.control.evaluators.entry import key_entry, route_entry, tenant_entries
from penstock.control.specs.policy import PolicySpec
from penstock.control.specs.resources import (
    CascadeSpec,
    ChooseSpec,
    LimitsSpec,
    PlaceSpec,
    PoolSpec,
    PriceSpec,
    QualitySpec,
    RouteSpec,
    SemanticSpec,
    TenantSpec,
)
from penstock.core.references import parse_reference
from penstock.core.snapshot import (
    CachePolicy,
    Cascade,
    ChooseRule,
    ExperimentEntry,
    HealthPolicy,
    Limits,
    Policy,
    Pool,
    Price,
    QualityPolicy,
    QueuePolicy,
    Replica,
    Route,
    Rule,
    SemanticPolicy,
    Snapshot,
    Target,
    TenantEntry,
    Trim,
)
from penstock.delivery.pools import BuildKey, Want, WantedPool, wanted_pools

DEFAULT_POLICY = "default"


def compile_snapshot(state: State, now: float) -> Snapshot:
    """The Snapshot of `state`.

    - Every declared route, its targets turned into pools of builds; and for each model that a served environment runs and no route is
      named after, a route of the model's name (`NAME@ENVIRONMENT` where the environment is not the gateways' own).
    - Every adopted pool, and a pool for each build that something wants, with the replicas that were seen ready.
    - A running experiment, once the pool of each of its arms has a replica.
    - For each evaluator that asks a model, a route and a key of its own.

    A target that names what is not there yet becomes a pool without replicas: clients get 503, never a wrong model.
    """
    pools = {pool.name: pool for pool in _pools(state)}
    routes = [_declared(name, spec, state, pools) for name, spec in state.routes.items()]
    known = {route.name for route in routes}
    for deployment in state.deployments:
        route = _deployed(deployment, state, pools)
        if route is not None and route.name not in known:
            routes.append(route)
    experiments = {e.route: e.entry for e in state.experiments if _runnable(e.entry, pools)}
    asking = {name: spec for name, spec in state.evaluators.items() if name in state.evaluator_keys}
    judges, unkept = tenant_entries(bool(asking))
    routes += [
        route_entry(name, spec.place, lambda place: _place(place, state, pools))
        for name, spec in asking.items()
        if spec.place is not None
    ]
    return Snapshot(
        generation=state.generation,
        compiled_at=now,
        environment=state.environment,
        keys=(
            *(key for key in state.keys if key.tenant in state.tenants),
            *(key_entry(name, spec, state.evaluator_keys[name]) for name, spec in asking.items()),
        ),
        tenants=(*judges, *(_tenant(name, spec) for name, spec in sorted(state.tenants.items()))),
        routes=tuple(
            msgspec.structs.replace(route, experiment=experiments.get(route.name))
            for route in sorted(routes, key=lambda r: r.name)
        ),
        pools=tuple(sorted(pools.values(), key=lambda p: p.name)),
        policies=(*unkept, *(_policy(name, spec) for name, spec in sorted(state.policies.items()))),
    )


def pools_to_run(state: State) -> tuple[WantedPool, ...]:
    """The pools whose replicas the reconcile loop keeps: of deployments (wanted, live, and the earlier one, warm), declared pools, experiments."""
    wants: list[Want] = []
    for deployment in state.deployments:
        if not served(deployment.environment, state):
            continue
        by = f"deployment:{deployment.environment}/{deployment.model}"
        wants.extend(
            Want(build=revision.build, replicas=revision.replicas, urgent=urgent, by=by)
            for revision, urgent in ((deployment.wanted, True), (deployment.live, True), (deployment.warm, False))
            if revision is not None and revision.state != "failed"
        )
    for name, spec in state.pools.items():
        wants.extend(
            Want(
                build=build,
                replicas=spec.replicas,
                urgent=build == build_of_pool(spec, state),
                prefix_cache=spec.prefix_cache == "shared",
                by=f"pool:{name}",
            )
            for build in _builds_of_pool(spec, state)
        )
    for experiment in state.experiments:
        wants.extend(
            Want(build=build, replicas=experiment.replicas, by=f"experiment:{experiment.entry.name}")
            for build in experiment.builds
        )
    return tuple(pool for pool in wanted_pools(wants) if pool.build in state.builds)


def served(environment: str, state: State) -> bool:
    """Whether what is deployed in `environment` runs here."""
    spec = state.environments.get(environment)
    return environment == state.environment or (spec is not None and spec.serve)


def build_of_pool(spec: PoolSpec, state: State) -> BuildKey | None:
    """The build that a declared pool names; None for adopted servers, or while there is no such version."""
    if spec.build is None:
        return None
    reference = parse_reference(spec.build)
    label = reference.label
    if reference.alias is not None:
        live = _live(reference.alias, reference.name, state)
        label = live.label if live is not None else _aliased(reference.name, reference.alias, spec.precision, state)
    elif reference.digest is not None:
        same = (
            k for k, b in state.builds.items() if k.model == reference.name and b.version_digest == reference.digest
        )
        label = next((key.label for key in same), None)
    return None if label is None else BuildKey(model=reference.name, label=label, precision=spec.precision)


def _aliased(model: str, alias: str, precision: str, state: State) -> str | None:
    """The label that an alias means, as far as requests go: the one before until replicas of the new one are ready."""
    labels = state.aliases.get((model, alias), ())
    pools = {row.pool for row in state.replicas}
    for label in labels:
        if BuildKey(model=model, label=label, precision=precision).pool in pools:
            return label
    return labels[0] if labels else None


def _builds_of_pool(spec: PoolSpec, state: State) -> set[BuildKey]:
    """What the pool is for now, and, where it follows an environment or an alias, what it was for before and will be for."""
    build = build_of_pool(spec, state)
    found = {build} if build is not None else set()
    reference = parse_reference(spec.build) if spec.build is not None else None
    if reference is not None and reference.alias is not None:
        meant = state.aliases.get((reference.name, reference.alias), ())[:1]
        found |= {BuildKey(model=reference.name, label=label, precision=spec.precision) for label in meant}
        for deployment in state.deployments:
            if (deployment.environment, deployment.model) == (reference.alias, reference.name):
                labels = {r.label for r in (deployment.wanted, deployment.warm) if r is not None}
                found |= {BuildKey(model=reference.name, label=label, precision=spec.precision) for label in labels}
    return found


def _live(environment: str, model: str, state: State) -> BuildKey | None:
    for deployment in state.deployments:
        if (deployment.environment, deployment.model) == (environment, model) and deployment.live is not None:
            return deployment.live.build
    return None


def _pools(state: State) -> list[Pool]:
    replicas: dict[str, list[Replica]] = {}
    for row in state.replicas:
        replicas.setdefault(row.pool, []).append(Replica(id=row.id, url=row.url))
    declared = {}
    pools = []
    for name, spec in state.pools.items():
        for build in _builds_of_pool(spec, state):
            declared[build.pool] = spec
        if spec.adopt is not None:
            adopted = tuple(Replica(id=f"{name}-{i}", url=url) for i, url in enumerate(spec.adopt))
            pools.append(_pool(name, spec, adopted, model=spec.model))
    for wanted in pools_to_run(state):
        info = state.builds[wanted.build]
        pools.append(
            msgspec.structs.replace(
                _pool(
                    wanted.name,
                    declared.get(wanted.name, _PLAIN),
                    tuple(replicas.get(wanted.name, ())),
                    model=wanted.build.model,
                    price=info.price,
                ),
                dialect="penstock",
                quality=_quality(declared.get(wanted.name, _PLAIN).quality, info.refusals),
                prefix_cache="shared" if wanted.prefix_cache else "separate",
                version=f"{wanted.build.model}:{wanted.build.label}",
                digest=info.version_digest,
                build=info.digest,
            )
        )
    return pools


_PLAIN = PoolSpec(build="none:v0.0.0")


def _pool(
    name: str, spec: PoolSpec, replicas: tuple[Replica, ...], *, model: str | None, price: PriceSpec | None = None
) -> Pool:
    price = spec.price or price
    return Pool(
        name=name,
        replicas=replicas,
        model=model,
        price=Price() if price is None else Price(prompt=price.prompt, completion=price.completion),
        connect_timeout_s=spec.connect_timeout_s,
        first_byte_timeout_s=spec.first_byte_timeout_s,
        stall_timeout_s=spec.stall_timeout_s,
        answer_timeout_s=spec.answer_timeout_s,
        max_in_flight=spec.max_in_flight,
        max_waiting=spec.max_waiting,
        max_wait_s=spec.max_wait_s,
        queue=QueuePolicy(**spec.queue.model_dump()),
        affinity=spec.affinity,
        load_factor=spec.load_factor,
        health=HealthPolicy(**spec.health.model_dump()),
        dialect=spec.dialect or "openai",
        quality=_quality(spec.quality) if spec.dialect == "penstock" else QualityPolicy(),
        prefix_cache=spec.prefix_cache,
    )


def _quality(spec: QualitySpec, refusals: tuple[str, ...] = ()) -> QualityPolicy:
    """As declared; `refusals` are those that the version's metadata tell."""
    return QualityPolicy(share=spec.share, refusals=refusals if spec.refusals is None else tuple(spec.refusals))


def _declared(name: str, spec: RouteSpec, state: State, pools: dict[str, Pool]) -> Route:
    targets: dict[str, float] = {}
    for target in spec.to:
        pool = _place(target, state, pools)
        targets[pool] = targets.get(pool, 0.0) + target.weight
    return Route(
        name=name,
        to=tuple(Target(pool=pool, weight=weight) for pool, weight in targets.items()),
        cache=CachePolicy(
            mode=spec.cache.mode,
            ttl_s=spec.cache.ttl_s,
            sampled=spec.cache.sampled,
            tools=spec.cache.tools,
            shared=spec.cache.shared,
            semantic=None if spec.cache.semantic is None else _semantic(spec.cache.semantic, state, pools),
        ),
        limits=_limits(spec.limits),
        policy=_policy_name(spec.policy, state),
        created=int(state.created.get(("Route", name), 0.0)),
        attempts=spec.attempts,
        fallback=tuple(dict.fromkeys(_named(pool, state, pools) for pool in spec.fallback)),
        hedge_after_s=spec.hedge_after_s,
        choose=tuple(_choose(rule, _place(rule, state, pools)) for rule in spec.choose),
        cascade=None if spec.cascade is None else _cascade(spec.cascade, state, pools),
        trim=None if spec.trim is None else Trim(**spec.trim.model_dump()),
        max_tokens=spec.max_tokens,
        default_max_tokens=spec.default_max_tokens,
        coalesce=spec.coalesce,
        resume=spec.resume,
    )


def _place(place: PlaceSpec, state: State, pools: dict[str, Pool]) -> str:
    if place.model is not None:
        return _named(f"{place.model}@{place.env or state.environment}", state, pools)
    return _named(place.pool or "", state, pools)


def _semantic(spec: SemanticSpec, state: State, pools: dict[str, Pool]) -> SemanticPolicy:
    return SemanticPolicy(
        pool=_place(spec, state, pools),
        threshold=spec.threshold,
        timeout_s=spec.timeout_s,
        entries=spec.entries,
        same_words=tuple(tuple(group) for group in spec.same_words),
    )


def _choose(spec: ChooseSpec, pool: str) -> ChooseRule:
    told = spec.model_dump(exclude={"pool", "model", "env", "tenants", "last_user"})
    tenants = None if spec.tenants is None else tuple(spec.tenants)
    return ChooseRule(pool=pool, tenants=tenants, last_user=spec.last_user or "", **told)


def _cascade(spec: CascadeSpec, state: State, pools: dict[str, Pool]) -> Cascade:
    return Cascade(
        first=_place(spec.first, state, pools),
        then=_place(spec.then, state, pools),
        min_mean_logprob=spec.min_mean_logprob,
        min_token_logprob=spec.min_token_logprob,
        patterns=tuple(spec.patterns),
        finish=tuple(spec.finish),
        hold_tokens=spec.hold_tokens,
        control_share=spec.control_share,
        tools=spec.tools,
    )


def _named(name: str, state: State, pools: dict[str, Pool]) -> str:
    """The pool of what `name` names, a declared pool or MODEL@ENVIRONMENT; one without replicas while there is no such build."""
    model, _, environment = name.partition("@")
    if environment:
        build = _live(environment, model, state)
    else:
        declared = state.pools.get(name)
        build = build_of_pool(declared, state) if declared is not None else None
    pool = name if build is None else build.pool
    pools.setdefault(pool, Pool(name=pool))
    return pool


def _deployed(deployment: Deployment, state: State, pools: dict[str, Pool]) -> Route | None:
    if deployment.live is None or not served(deployment.environment, state):
        return None
    own = deployment.environment == state.environment
    pool = deployment.live.build.pool
    pools.setdefault(pool, Pool(name=pool))
    return Route(
        name=deployment.model if own else f"{deployment.model}@{deployment.environment}",
        to=(Target(pool=pool),),
        policy=_policy_name(None, state),
        created=int(deployment.live.created_at),
    )


def _runnable(entry: ExperimentEntry, pools: dict[str, Pool]) -> bool:
    firsts = (arm.cascade.first for arm in entry.arms if arm.cascade is not None)
    return all(name in pools and pools[name].replicas for name in (*(arm.pool for arm in entry.arms), *firsts))


def _policy_name(name: str | None, state: State) -> str | None:
    return name or (DEFAULT_POLICY if DEFAULT_POLICY in state.policies else None)


def _limits(spec: LimitsSpec) -> Limits:
    return Limits(**spec.model_dump())


def _tenant(name: str, spec: TenantSpec) -> TenantEntry:
    return TenantEntry(
        name=name,
        priority=spec.priority,
        weight=spec.weight,
        limits=_limits(spec.limits),
        model_limits={model: _limits(limits) for model, limits in spec.model_limits.items()},
        models=None if spec.models is None else tuple(spec.models),
        policy=spec.policy,
    )


def _policy(name: str, spec: PolicySpec) -> Policy:
    return Policy(
        name=name,
        capture=spec.capture,
        capture_share=spec.capture_share,
        capture_mask=tuple(spec.capture_mask),
        capture_chars=spec.capture_chars,
        audit=spec.audit,
        ledger_down=spec.ledger_down,
        rules=tuple(
            Rule(
                name=rule.name,
                detect=rule.detect,
                words=tuple(rule.words),
                patterns=tuple(rule.patterns),
                on=tuple(rule.on),
                do=rule.do,
            )
            for rule in spec.rules
        ),
    )
