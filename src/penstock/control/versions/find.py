"""References to versions, resolved: what a label, an alias, an environment or a digest names, now."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.errors import NotFound
from penstock.core.references import Reference, parse_reference
from penstock.store.schema import deployments, revisions, versions
from penstock.store.schema_versions import aliases


async def find_version(connection: AsyncConnection, reference: Reference) -> Any:
    """The row of the version that `reference` names. What follows @ is an alias, an environment (what it serves), or `latest` (by commit).

    Raises:
        NotFound: if there is none.
    """
    mine = select(versions).where(versions.c.model == reference.name)
    if reference.label is not None:
        statement = mine.where(versions.c.label == reference.label)
    elif reference.digest is not None:
        statement = mine.where(versions.c.digest == reference.digest).order_by(versions.c.number)
    elif reference.alias == "latest":
        statement = mine.where(versions.c.state != "deleted").order_by(versions.c.number.desc())
    else:
        serving = (
            select(revisions.c.label)
            .join(deployments, deployments.c.live == revisions.c.id)
            .where(deployments.c.environment == reference.alias, deployments.c.model == reference.name)
        )
        named = select(aliases.c.label).where(aliases.c.model == reference.name, aliases.c.name == reference.alias)
        statement = mine.where(versions.c.label.in_(serving) | versions.c.label.in_(named))
    row = (await connection.execute(statement.limit(1))).first()
    if row is None:
        raise NotFound(f"There is no version {reference}.", hint="penstock models list shows what there is.")
    return row


def reference_in(model: str, text: str) -> Reference:
    """What `text` names within `model`, as a path of the API has it: a label, `@ALIAS`, an environment's name, or a digest."""
    if text.startswith("sha256:"):
        return parse_reference(f"{model}@{text}")
    if text.startswith("@"):
        return parse_reference(f"{model}{text}")
    return parse_reference(f"{model}:{text}")
