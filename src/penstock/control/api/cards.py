"""/api/v1/models/NAME/versions/LABEL/card: the card, its revisions, what it lacks, one to begin from; and the lineage around a version."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse
from pydantic import Field

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.specs.resources import Spec
from penstock.control.versions.cards import (
    card_text,
    edit_card,
    fill_template,
    missing_of,
    newest_revision,
    read_revisions,
)
from penstock.control.versions.find import find_version, reference_in
from penstock.control.versions.lineage import read_graph

router = APIRouter(tags=["models"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]
_MARKDOWN = "text/markdown; charset=utf-8"


class CardBody(Spec):
    """The body of PUT /models/{name}/versions/{label}/card."""

    text: str = Field(
        max_length=1 << 20, description="Markdown, with YAML front matter as the Hugging Face hub reads it."
    )
    reason: str = Field(default="", max_length=4096)
    revision: int | None = Field(
        default=None, ge=0, description="The newest as you saw it: refused if there is a newer one."
    )


@router.get("/models/{name}/versions/{label}/card", response_class=PlainTextResponse)
async def card_of(
    name: str,
    label: str,
    control: ControlPart,
    _who: Reader,
    revision: Annotated[int | None, Query(ge=1, description="As it was then; left out: as it is.")] = None,
) -> PlainTextResponse:
    """The card, as Markdown."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        text = await card_text(connection, version, revision)
        newest = await newest_revision(connection, version.model, version.label)
    headers = {"x-penstock-digest": version.digest, "x-penstock-revision": str(revision or newest)}
    return PlainTextResponse(text, media_type=_MARKDOWN, headers=headers)


@router.put("/models/{name}/versions/{label}/card")
async def put_card(name: str, label: str, body: CardBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Make a new revision of the card; the version's digest stays."""
    async with control.change(who) as change:
        version = await find_version(change.connection, reference_in(name, label))
        number = await edit_card(change, version, body.text, reason=body.reason, revision=body.revision)
        version = await find_version(change.connection, reference_in(name, version.label))
    return {
        "model": version.model,
        "label": version.label,
        "digest": version.digest,
        "revision": number,
        "lacking": msgspec.to_builtins(missing_of(version)),
    }


@router.get("/models/{name}/versions/{label}/card/check")
async def check_card_of(name: str, label: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """What the card does not say: what any card says, and what production asks for, each with the command that supplies it."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
    found = missing_of(version)
    return {
        "model": version.model,
        "label": version.label,
        "digest": version.digest,
        "complete": not any(one.wanted_for == "any" for one in found),
        "complete_for_production": not found,
        "lacking": msgspec.to_builtins(found),
    }


@router.get("/models/{name}/versions/{label}/card/revisions")
async def card_revisions_of(name: str, label: str, control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """The card's revisions, newest first: who, when, why."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        return await read_revisions(connection, version.model, version.label)


@router.get("/models/{name}/versions/{label}/card/template", response_class=PlainTextResponse)
async def card_template(name: str, label: str, control: ControlPart, _who: Reader) -> PlainTextResponse:
    """A card to begin from, filled with metadata, evaluations, data sets and lineage; what nobody has told is a comment."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        text = await fill_template(connection, version)
    return PlainTextResponse(text, media_type=_MARKDOWN, headers={"x-penstock-digest": version.digest})


@router.get("/models/{name}/versions/{label}/lineage")
async def lineage_of(name: str, label: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """What a version came of and what came of it: nodes with their depth (below 0: ancestors), edges by relation."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        graph = await read_graph(connection, version)
    return {
        "model": version.model,
        "label": version.label,
        "digest": version.digest,
        **msgspec.to_builtins(graph),
    }
