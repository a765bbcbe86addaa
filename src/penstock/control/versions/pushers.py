"""Who pushed a version: a person, whatever they are called and whichever keys they have."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.store.schema import keys, principals


async def pusher_of(connection: AsyncConnection, version: Any) -> str:
    """The id of the principal who pushed the version whose row is given; "": of none, as far as is known."""
    if version.pushed_by or not version.pushed_with:
        return str(version.pushed_by)
    statement = (
        select(principals.c.id)
        .join(keys, keys.c.principal == principals.c.name)
        .where(keys.c.id == version.pushed_with)
    )
    return (await connection.execute(statement)).scalar_one_or_none() or ""
