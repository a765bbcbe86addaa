"""Blocks as rows: set with the roll-back that is their cause, cleared by somebody with a reason."""

from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.core.errors import NotFound
from penstock.delivery.blocks import Block
from penstock.store.schema_delivery import blocks


def _block(row: Row[Any]) -> Block:
    return Block(**{name: getattr(row, name) for name in Block.__struct_fields__})


async def standing_blocks(connection: AsyncConnection, environment: str, model: str) -> list[Block]:
    """The blocks of `model` in `environment` that nobody has cleared."""
    statement = select(blocks).where(
        blocks.c.environment == environment, blocks.c.model == model, blocks.c.cleared_at.is_(None)
    )
    return [_block(row) for row in await connection.execute(statement.order_by(blocks.c.at))]


async def block_version(change: Change, *, environment: str, model: str, label: str, digest: str, reason: str) -> bool:
    """Keep the version out of `environment` until it is cleared; False if it was kept out already."""
    if any(one.digest == digest for one in await standing_blocks(change.connection, environment, model)):
        return False
    await change.connection.execute(
        insert(blocks).values(
            id=change.new_id("blk"),
            environment=environment,
            model=model,
            label=label,
            digest=digest,
            reason=reason,
            principal=change.caller.name,
            at=change.now,
        )
    )
    await change.audit("version.block", f"{environment}/{model}:{label}", digest=digest, reason=reason)
    return True


async def clear_block(change: Change, *, environment: str, model: str, digest: str, reason: str) -> None:
    """Let the version be deployed in `environment` again.

    Raises:
        NotFound: if it is not blocked there.
    """
    cleared = await change.connection.execute(
        update(blocks)
        .where(
            blocks.c.environment == environment,
            blocks.c.model == model,
            blocks.c.digest == digest,
            blocks.c.cleared_at.is_(None),
        )
        .values(cleared_at=change.now, cleared_by=change.caller.name, cleared_reason=reason)
    )
    if cleared.rowcount == 0:
        raise NotFound(f"This version of {model} is not blocked in {environment}.", param="label")
    await change.audit("version.unblock", f"{environment}/{model}", digest=digest, reason=reason)
