"""What the database says, read at one moment: the input of the pure rules that compile Snapshots and plan replicas."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.evaluators.entry import secret_of
from penstock.control.figures.refusals import refusals_of
from penstock.control.specs.evaluator import EvaluatorSpec
from penstock.control.specs.policy import PolicySpec
from penstock.control.specs.resources import EnvironmentSpec, PoolSpec, PriceSpec, RouteSpec, Spec, TenantSpec
from penstock.core.digests import hash_secret
from penstock.core.snapshot import ExperimentEntry, KeyEntry, Limits
from penstock.delivery.pools import BuildKey
from penstock.store import schema
from penstock.store.schema_versions import aliases

SPECS: dict[str, type[Spec]] = {
    "Tenant": TenantSpec,
    "Pool": PoolSpec,
    "Route": RouteSpec,
    "Policy": PolicySpec,
    "Environment": EnvironmentSpec,
    "Evaluator": EvaluatorSpec,
}


class ActiveExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """A running experiment: the route it splits, how, and the builds whose pools its arms name (`BuildKey.pool`)."""

    route: str
    entry: ExperimentEntry
    builds: tuple[BuildKey, ...] = ()
    replicas: int = 1  # of each of them, at least


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the deployment record, as far as serving needs it."""

    id: str
    environment: str
    model: str
    number: int
    label: str
    digest: str
    precision: str = "int8"
    replicas: int = 1
    state: str = "pending"
    created_at: float = 0.0

    @property
    def build(self) -> BuildKey:
        """What it runs."""
        return BuildKey(model=self.model, label=self.label, precision=self.precision)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment is to run of a model, what it serves, and what it keeps warm."""

    environment: str
    model: str
    wanted: Revision
    live: Revision | None = None
    warm: Revision | None = None


class BuildInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One build of a version."""

    key: BuildKey
    digest: str
    version_digest: str
    folder: str
    price: PriceSpec | None = None  # as the version's metadata tell it
    refusals: tuple[str, ...] = ()  # likewise


class ReplicaRow(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that Snapshots point at."""

    id: str
    pool: str
    url: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    generation: int
    environment: str = "production"  # the one that gateways serve
    tenants: dict[str, TenantSpec] = {}
    pools: dict[str, PoolSpec] = {}
    routes: dict[str, RouteSpec] = {}
    policies: dict[str, PolicySpec] = {}
    environments: dict[str, EnvironmentSpec] = {}
    created: dict[tuple[str, str], float] = {}  # (kind, name) -> Unix seconds
    keys: tuple[KeyEntry, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    builds: dict[BuildKey, BuildInfo] = {}
    aliases: dict[
        tuple[str, str], tuple[str, ...]
    ] = {}  # (model, alias) -> the label that it means, and the one before
    replicas: tuple[ReplicaRow, ...] = ()
    experiments: tuple[ActiveExperiment, ...] = ()
    evaluators: dict[str, EvaluatorSpec] = {}
    evaluator_keys: dict[str, str] = {}  # of those that ask models: the hash of each one's key


ActiveExperiments = Callable[[AsyncConnection], Awaitable[tuple[ActiveExperiment, ...]]]


async def no_experiments(_connection: AsyncConnection) -> tuple[ActiveExperiment, ...]:
    """For a house without experiments."""
    return ()


async def load_state(
    connection: AsyncConnection,
    *,
    environment: str,
    active_experiments: ActiveExperiments = no_experiments,
    service_token: str = "",
) -> State:
    """The state as `connection` sees it; without `service_token` evaluators have no keys."""
    tables: dict[str, dict[str, Any]] = {kind: {} for kind in SPECS}
    created: dict[tuple[str, str], float] = {}
    mine = select(schema.resources).where(schema.resources.c.kind.in_(tuple(SPECS)))
    for row in await connection.execute(mine.order_by(schema.resources.c.name)):
        tables[row.kind][row.name] = SPECS[row.kind].model_validate(row.spec)
        created[row.kind, row.name] = row.created_at
    generation = (
        await connection.execute(select(schema.sequences.c.value).where(schema.sequences.c.name == "generation"))
    ).scalar_one_or_none()
    replicas = await connection.execute(select(schema.replicas).order_by(schema.replicas.c.id))
    return State(
        generation=generation or 0,
        environment=environment,
        tenants=tables["Tenant"],
        pools=tables["Pool"],
        routes=tables["Route"],
        policies=tables["Policy"],
        environments=tables["Environment"],
        created=created,
        keys=await _keys(connection),
        deployments=await _deployments(connection),
        builds=await _builds(connection),
        aliases=await _aliases(connection),
        replicas=tuple(ReplicaRow(id=row.id, pool=row.pool, url=row.url) for row in replicas),
        experiments=await active_experiments(connection),
        evaluators=tables["Evaluator"],
        evaluator_keys={
            name: hash_secret(secret_of(service_token, name))
            for name, spec in tables["Evaluator"].items()
            if service_token and spec.place is not None
        },
    )


async def _keys(connection: AsyncConnection) -> tuple[KeyEntry, ...]:
    statement = (
        select(schema.keys, schema.principals.c.roles.label("principal_roles"), schema.principals.c.disabled_at)
        .select_from(schema.keys.outerjoin(schema.principals, schema.keys.c.principal == schema.principals.c.name))
        .where(schema.keys.c.tenant.is_not(None), schema.keys.c.revoked_at.is_(None))
        .order_by(schema.keys.c.id)
    )
    return tuple(
        KeyEntry(
            id=row.id,
            hash=row.hash,
            tenant=row.tenant,
            name=row.name,
            roles=tuple(row.roles if row.principal is None else row.principal_roles),
            models=None if row.models is None else tuple(row.models),
            limits=msgspec.convert(row.limits, Limits),
            model_limits=msgspec.convert(row.model_limits, dict[str, Limits]),
            expires_at=row.expires_at,
        )
        for row in await connection.execute(statement)
        if row.disabled_at is None
    )


async def _deployments(connection: AsyncConnection) -> tuple[Deployment, ...]:
    pointers = (
        await connection.execute(
            select(schema.deployments).order_by(schema.deployments.c.environment, schema.deployments.c.model)
        )
    ).all()
    ids = {i for row in pointers for i in (row.wanted, row.live, row.warm) if i is not None}
    rows = await connection.execute(select(schema.revisions).where(schema.revisions.c.id.in_(ids)))
    revisions = {row.id: revision_of(row) for row in rows}
    return tuple(
        Deployment(
            environment=row.environment,
            model=row.model,
            wanted=revisions[row.wanted],
            live=revisions.get(row.live),
            warm=revisions.get(row.warm),
        )
        for row in pointers
    )


def revision_of(row: Any) -> Revision:
    """The value of a row of `revisions`."""
    return Revision(
        id=row.id,
        environment=row.environment,
        model=row.model,
        number=row.number,
        label=row.label,
        digest=row.digest,
        precision=row.config.get("precision", "int8"),
        replicas=row.config.get("replicas", 1),
        state=row.state,
        created_at=row.created_at,
    )


async def _builds(connection: AsyncConnection) -> dict[BuildKey, BuildInfo]:
    told = schema.versions.c.metadata.label("version_metadata")
    statement = select(schema.builds, schema.versions.c.digest.label("version_digest"), told).join_from(
        schema.builds,
        schema.versions,
        (schema.builds.c.model == schema.versions.c.model) & (schema.builds.c.label == schema.versions.c.label),
    )
    found: dict[BuildKey, BuildInfo] = {}
    for row in await connection.execute(statement):
        key = BuildKey(model=row.model, label=row.label, precision=row.precision)
        found[key] = BuildInfo(
            key=key,
            digest=row.digest,
            version_digest=row.version_digest,
            folder=row.folder,
            price=price_of(row.version_metadata),
            refusals=refusals_of(row.version_metadata),
        )
    return found


async def _aliases(connection: AsyncConnection) -> dict[tuple[str, str], tuple[str, ...]]:
    rows = await connection.execute(select(aliases))
    return {(r.model, r.name): (r.label, r.previous) if r.previous is not None else (r.label,) for r in rows}


def price_of(metadata: dict[str, Any]) -> PriceSpec | None:
    """The price that a version's metadata tell; None if they tell none that can be read."""
    if "price" not in metadata:
        return None
    try:
        return PriceSpec.model_validate(metadata["price"])
    except ValidationError:
        return None
