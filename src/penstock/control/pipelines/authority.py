"""As whom a pipeline acts: whoever began it, as far as their key goes now."""

from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.auth import read_principal
from penstock.store.schema import keys


async def principal_of(connection: AsyncConnection, key: str, now: float) -> Principal | None:
    """Whoever holds the key of this id, with the roles of this moment; None: it is revoked, has expired, or its principal is disabled."""
    return await read_principal(connection, keys.c.id == key, now)
