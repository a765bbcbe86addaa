"""/api/v1/models/NAME/aliases: names of versions that move; and the states that a version may be moved to."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.specs.resources import Spec
from penstock.control.versions.aliases import move_alias, read_aliases, read_moves, remove_alias
from penstock.control.versions.find import find_version, reference_in
from penstock.control.versions.state import change_state
from penstock.core.errors import NotFound
from penstock.store.schema import models

router = APIRouter(tags=["models"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]
Seen = Annotated[int | None, Query(ge=0, description="The alias's generation as you saw it; 0: there was none.")]


class AliasBody(Spec):
    """The body of PUT /models/{name}/aliases/{alias}."""

    label: str = Field(description="What it is to mean: a label, a digest, @ALIAS or @ENVIRONMENT.")
    reason: str = Field(default="", max_length=4096)
    generation: int | None = Field(
        default=None, ge=0, description="As you saw it: refused if it has moved; 0: there was none."
    )
    override: str = Field(
        default="",
        max_length=4096,
        description="Why it may mean a version that does not pass the gates that a pool's following asks. Administrators alone may.",
    )


class StateBody(Spec):
    """The body of POST /models/{name}/versions/{label}/state."""

    state: Literal["archived", "committed", "deleted"]
    reason: str = Field(default="", max_length=4096)


@router.get("/models/{name}/aliases")
async def list_aliases(name: str, control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """The aliases of a model, each with the digest that it means."""
    async with control.database.read() as connection:
        if (await connection.execute(select(models.c.name).where(models.c.name == name))).one_or_none() is None:
            raise NotFound(f"There is no model {name!r}.")
        return await read_aliases(connection, name)


@router.put("/models/{name}/aliases/{alias}")
async def put_alias(name: str, alias: str, body: AliasBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Let an alias mean a version, by compare-and-swap if `generation` is given."""
    async with control.change(who) as change:
        version = await find_version(change.connection, reference_in(name, body.label))
        change.override = body.override
        return await move_alias(
            change,
            name,
            alias,
            version,
            own_environment=control.settings.control.environment,
            reason=body.reason,
            generation=body.generation,
        )


@router.get("/models/{name}/aliases/{alias}/history")
async def alias_history(name: str, alias: str, control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """Every move of an alias, newest first; of one that was removed, too."""
    async with control.database.read() as connection:
        return await read_moves(connection, name, alias)


@router.delete("/models/{name}/aliases/{alias}", status_code=204)
async def delete_alias(name: str, alias: str, control: ControlPart, who: Writer, generation: Seen = None) -> None:
    """Take an alias away; its history stays."""
    async with control.change(who) as change:
        await remove_alias(change, name, alias, generation=generation)


@router.post("/models/{name}/versions/{label}/state")
async def set_state(name: str, label: str, body: StateBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Archive a version, take it back, or delete it: its bytes go with the next sweep, its label is never used again."""
    async with control.change(who) as change:
        version = await find_version(change.connection, reference_in(name, label))
        await change_state(change, version, body.state, reason=body.reason)
    return {"model": version.model, "label": version.label, "digest": version.digest, "state": body.state}
