"""A pool that names a version lets it answer users: it passes the gates of the environment that gateways serve, as a promotion does."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.blocks import standing_blocks
from penstock.control.deploy.rows import live_revision
from penstock.control.deploy.state import revision_of
from penstock.control.gates.ask import gates_of
from penstock.control.gates.passing import pass_gates, tell_passed
from penstock.control.specs.resources import PoolSpec
from penstock.control.versions.find import find_version
from penstock.core.errors import Conflict, NotFound
from penstock.core.references import Reference, parse_reference
from penstock.delivery.blocks import check_unblocked
from penstock.delivery.pools import BuildKey
from penstock.registry.states import check_deployable
from penstock.store.schema import resources


async def check_pool(change: Change, name: str, spec: PoolSpec, environment: str) -> None:
    """See that what the pool names may serve in `environment`, the one that gateways serve.

    A pool that follows an environment is as good as that one's gates, and asks nothing here. What is live may serve, and so may what the pool names already.

    Raises:
        Conflict: if the version may not be deployed, is blocked, does not pass the gates, or is not there yet where there are gates.
        Forbidden: if somebody else than an administrator overrides the gates (`change.override`).
    """
    if spec.build is None:
        return
    reference = parse_reference(spec.build)
    if reference.alias is not None and await _is_environment(change.connection, reference.alias):
        return
    before = await _pool(change.connection, name)
    if before is not None and (before.build, before.precision) == (spec.build, spec.precision):
        return
    try:
        version = await find_version(change.connection, reference)
    except NotFound:
        await _check_unasked(change.connection, reference, environment)
        return
    await _check_version(change, name, version, spec.precision, environment)


async def check_followers(change: Change, what: str, version: Any, environment: str) -> None:
    """See that `version` may serve where pools follow the alias `what` (NAME@ALIAS); raises as `check_pool`."""
    rows = await change.connection.execute(
        select(resources.c.name, resources.c.spec).where(resources.c.kind == "Pool").order_by(resources.c.name)
    )
    for row in rows.all():
        if row.spec.get("build") == what:
            spec = PoolSpec.model_validate(row.spec)
            await _check_version(change, row.name, version, spec.precision, environment)


async def _check_version(change: Change, pool: str, version: Any, precision: str, environment: str) -> None:
    live = await live_revision(change.connection, environment, version.model)
    build = BuildKey(model=version.model, label=version.label, precision=precision)
    if live is not None and revision_of(live).build == build:
        return
    check_deployable(f"{version.model}:{version.label}", version.state)
    check_unblocked(
        await standing_blocks(change.connection, environment, version.model),
        model=version.model,
        label=version.label,
        digest=version.digest,
        environment=environment,
    )
    gated = await pass_gates(change, version, environment, precision, change.override)
    await tell_passed(change, gated, f"pool {pool}", change.override)


async def _check_unasked(connection: AsyncConnection, reference: Reference, environment: str) -> None:
    """Where gates are asked of a model, a pool names what is there: else whoever pushes it later would pass none."""
    policy = await gates_of(connection, environment)
    if policy is None or (policy.models is not None and reference.name not in policy.models):
        return
    raise Conflict(
        f"spec.build: there is no version {reference} yet, and {environment} has gates that it must pass first.",
        code="gates_not_passed",
        param="spec.build",
        hint="Push the version, let it pass the gates, then declare the pool.",
    )


async def _pool(connection: AsyncConnection, name: str) -> PoolSpec | None:
    statement = select(resources.c.spec).where(resources.c.kind == "Pool", resources.c.name == name)
    raw = (await connection.execute(statement)).scalar_one_or_none()
    return None if raw is None else PoolSpec.model_validate(raw)


async def _is_environment(connection: AsyncConnection, name: str) -> bool:
    statement = select(resources.c.name).where(resources.c.kind == "Environment", resources.c.name == name)
    return (await connection.execute(statement)).one_or_none() is not None
