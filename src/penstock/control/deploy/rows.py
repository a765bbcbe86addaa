"""The rows of the deployment record: pointers, revisions, and the checks that every change of them makes."""

from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.state import revision_of
from penstock.control.specs.resources import EnvironmentSpec
from penstock.core.errors import Conflict, NotFound
from penstock.delivery.revisions import Whole
from penstock.store.schema import builds, deployments, resources, revisions


async def insert_revision(
    change: Change,
    environment: str,
    model: str,
    whole: Whole,
    action: str,
    reason: str,
    *,
    previous: str | None,
    source: str | None = None,
    live: bool = False,
) -> tuple[str, int]:
    """The id and number of a new revision; no pointer moves."""
    statement = select(func.coalesce(func.max(revisions.c.number), 0)).where(
        revisions.c.environment == environment, revisions.c.model == model
    )
    number: int = (await change.connection.execute(statement)).scalar_one() + 1
    identity = change.new_id("rev")
    await change.connection.execute(
        insert(revisions).values(
            id=identity,
            environment=environment,
            model=model,
            number=number,
            action=action,
            label=whole.label,
            digest=whole.digest,
            config={"precision": whole.precision, "replicas": whole.replicas},
            state="live" if live else "pending",
            detail="",
            reason=reason,
            principal=change.caller.name,
            previous=previous,
            source=source,
            created_at=change.now,
            live_at=change.now if live else None,
        )
    )
    return identity, number


async def move_pointer(connection: AsyncConnection, pointer: Any, values: dict[str, Any]) -> None:
    """Move the pointer, unless it has moved since it was read.

    Raises:
        Conflict: if it has.
    """
    moved = await connection.execute(
        update(deployments)
        .where(
            deployments.c.environment == pointer.environment,
            deployments.c.model == pointer.model,
            deployments.c.generation == pointer.generation,
        )
        .values(**values)
    )
    if moved.rowcount != 1:
        raise Conflict(
            f"The deployment of {pointer.model} in {pointer.environment} has changed meanwhile.",
            code="generation_conflict",
        )


async def read_pointer(connection: AsyncConnection, environment: str, model: str, seen: int | None) -> Any:
    """What `environment` runs of `model`; None: nothing yet.

    Raises:
        Conflict: if it is of another generation than was `seen`.
    """
    statement = select(deployments).where(deployments.c.environment == environment, deployments.c.model == model)
    row = (await connection.execute(statement)).one_or_none()
    is_now = row.generation if row is not None else 0
    if seen is not None and seen != is_now:
        raise Conflict(
            f"The deployment of {model} in {environment} is of generation {is_now}, not {seen}: it has changed meanwhile.",
            code="generation_conflict",
            param="generation",
        )
    return row


async def read_revision(connection: AsyncConnection, identity: str) -> Any:
    """The revision of this id."""
    return (await connection.execute(select(revisions).where(revisions.c.id == identity))).one()


async def live_revision(connection: AsyncConnection, environment: str, model: str) -> Any:
    """The revision of `model` that `environment` serves; None: none."""
    statement = (
        select(revisions)
        .join(deployments, deployments.c.live == revisions.c.id)
        .where(deployments.c.environment == environment, deployments.c.model == model)
    )
    return (await connection.execute(statement)).one_or_none()


def whole_of(row: Any) -> Whole:
    """The whole state of a revision."""
    one = revision_of(row)
    return Whole(label=one.label, digest=one.digest, precision=one.precision, replicas=one.replicas)


async def serves_here(connection: AsyncConnection, environment: str, own: str) -> bool:
    """Whether what `environment` runs of models runs here; `own` is the one that gateways serve.

    Raises:
        NotFound: if there is no such environment.
    """
    statement = select(resources.c.spec).where(resources.c.kind == "Environment", resources.c.name == environment)
    spec = (await connection.execute(statement)).scalar_one_or_none()
    if spec is None:
        raise NotFound(f"There is no environment {environment!r}.", param="environment")
    return environment == own or EnvironmentSpec.model_validate(spec).serve


async def labels_elsewhere(connection: AsyncConnection, environment: str, model: str, own: str) -> frozenset[str]:
    """The labels of `model` that environments other than `environment` serve; `own` is the one that gateways serve."""
    live = await connection.execute(
        select(revisions.c.label, revisions.c.environment, resources.c.spec)
        .join(deployments, deployments.c.live == revisions.c.id)
        .join(resources, (resources.c.kind == "Environment") & (resources.c.name == revisions.c.environment))
        .where(revisions.c.model == model, revisions.c.environment != environment)
    )
    return frozenset(
        row.label for row in live if row.environment == own or EnvironmentSpec.model_validate(row.spec).serve
    )


async def check_build(connection: AsyncConnection, model: str, whole: Whole, reference: str) -> None:
    """See that the version has the build.

    Raises:
        Conflict: if it has not.
    """
    statement = select(builds.c.precision).where(builds.c.model == model, builds.c.label == whole.label)
    found = sorted((await connection.execute(statement)).scalars())
    if whole.precision not in found:
        there = f"it has {', '.join(found)}" if found else "it has none"
        raise Conflict(
            f"{reference} has no build in {whole.precision} to run ({there}).",
            param="precision",
            code="build_missing",
            hint=f"penstock models build {reference} --precision {whole.precision} makes one of its weights.",
        )
