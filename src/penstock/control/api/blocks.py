"""/api/v1/blocks: versions that may not be deployed in an environment, and clearing them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy import Row, select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.deploy.blocks import block_version, clear_block
from penstock.control.deploy.canary_rows import take_back_blocked
from penstock.control.specs.resources import Name, Spec
from penstock.control.versions.find import find_version, reference_in
from penstock.store.schema_delivery import blocks

router = APIRouter(prefix="/blocks", tags=["deployments"])
Reader = Annotated[Principal, Depends(needs("deployments:read"))]
Writer = Annotated[Principal, Depends(needs("deployments:write"))]


class BlockBody(Spec):
    """The body of POST /blocks and /blocks/clear."""

    model: Name
    label: str = Field(description="A label, or a digest.")
    environment: Name = "production"
    reason: str = Field(min_length=1, max_length=4096, description="Why, for whoever meets the block.")


def block_answer(row: Row[Any]) -> dict[str, Any]:
    """A block as the API tells it."""
    return {name: row._mapping[name] for name in blocks.c.keys()}  # noqa: SLF001, SIM118 - public, by its documentation


@router.get("")
async def list_blocks(
    control: ControlPart,
    _who: Reader,
    model: str | None = None,
    environment: str | None = None,
    every: Annotated[bool, Query(alias="all", description="Cleared ones too.")] = False,
) -> list[dict[str, Any]]:
    """Versions that may not be deployed, newest first."""
    statement = select(blocks).order_by(blocks.c.at.desc(), blocks.c.id.desc())
    for column, value in ((blocks.c.model, model), (blocks.c.environment, environment)):
        if value is not None:
            statement = statement.where(column == value)
    if not every:
        statement = statement.where(blocks.c.cleared_at.is_(None))
    async with control.database.read() as connection:
        return [block_answer(row) for row in await connection.execute(statement)]


@router.post("", status_code=201)
async def add_block(body: BlockBody, control: ControlPart, who: Writer) -> list[dict[str, Any]]:
    """Keep a version out of an environment until it is cleared. A canary of it is taken back; where it is live it goes on. Gives the model's blocks there."""
    async with control.change(who) as change:
        version = await find_version(change.connection, reference_in(body.model, body.label))
        await block_version(
            change,
            environment=body.environment,
            model=version.model,
            label=version.label,
            digest=version.digest,
            reason=body.reason,
        )
        await take_back_blocked(
            change,
            environment=body.environment,
            model=version.model,
            digest=version.digest,
            reason=body.reason,
        )
    return await list_blocks(control, who, body.model, body.environment)


@router.post("/clear")
async def clear(body: BlockBody, control: ControlPart, who: Writer) -> list[dict[str, Any]]:
    """Let a version be deployed again. Gives the model's blocks that are left there."""
    async with control.change(who) as change:
        version = await find_version(change.connection, reference_in(body.model, body.label))
        await clear_block(
            change, environment=body.environment, model=version.model, digest=version.digest, reason=body.reason
        )
    return await list_blocks(control, who, body.model, body.environment)
