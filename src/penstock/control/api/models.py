"""/api/v1/models, their versions and files."""

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.specs.resources import Name, Spec
from penstock.control.versions.aliases import read_aliases
from penstock.control.versions.cards import newest_revision
from penstock.control.versions.find import find_version, reference_in
from penstock.control.versions.signatures import signers_of
from penstock.core.errors import NotFound
from penstock.core.references import check_name, parse_reference
from penstock.registry.builds import code_of
from penstock.registry.card import missing_from, parse_card
from penstock.registry.files import is_tensor_pickle
from penstock.registry.manifest import Manifest, read_manifest
from penstock.registry.schemes import newest, parse_label, suggest_next
from penstock.store.blobs import PIECE
from penstock.store.schema import builds, models, versions

router = APIRouter(tags=["models"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]


class Description(Spec):
    """The body of PUT /models/{name}."""

    name: Name | None = None
    description: str = Field(max_length=4096)


def _summary(row: Any) -> dict[str, Any]:
    return {
        "model": row.model,
        "label": row.label,
        "digest": row.digest,
        "state": row.state,
        "scheme": row.scheme,
        "number": row.number,
        "size": row.size,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "metadata": row.metadata,
    }


async def version_detail(connection: AsyncConnection, row: Any) -> dict[str, Any]:
    """A version as the API tells it, with its files, builds and card."""
    manifest = read_manifest(row.manifest, row.digest)
    found = await connection.execute(
        select(builds).where(builds.c.model == row.model, builds.c.label == row.label).order_by(builds.c.precision)
    )
    return {
        **_summary(row),
        "card": row.card,
        "card_missing": list(missing_from(parse_card(row.card))) if row.card else ["the card itself: README.md"],
        "card_revision": await newest_revision(connection, row.model, row.label),
        "aliases": [one["alias"] for one in await read_aliases(connection, row.model) if one["label"] == row.label],
        "builds": [
            {
                "precision": b.precision,
                "engine": b.engine,
                "folder": b.folder,
                "digest": b.digest,
                "size": b.size,
                "made": b.manifest is not None,
            }
            for b in found
        ],
        "files": _files(manifest),
        "code": code_of(manifest),
        "pickles": [path for path in sorted(manifest.files) if is_tensor_pickle(path)],
        "signed_by": list(await signers_of(connection, row.digest)),
    }


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {"path": path, "digest": entry.digest, "size": entry.size, "role": entry.role}
        for path, entry in sorted(manifest.files.items())
    ]


async def _model(connection: AsyncConnection, row: Any) -> dict[str, Any]:
    labels = (
        (
            await connection.execute(
                select(versions.c.label).where(versions.c.model == row.name).order_by(versions.c.number)
            )
        )
        .scalars()
        .all()
    )
    return {
        "name": row.name,
        "description": row.description,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "versions": len(labels),
        "latest": labels[-1] if labels else None,
    }


@router.get("/models")
async def list_models(control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """All models."""
    async with control.database.read() as connection:
        rows = (await connection.execute(select(models).order_by(models.c.name))).all()
        return [await _model(connection, row) for row in rows]


@router.get("/models/{name}")
async def show_model(name: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """One model."""
    async with control.database.read() as connection:
        row = (await connection.execute(select(models).where(models.c.name == name))).one_or_none()
        if row is None:
            raise NotFound(f"There is no model {name!r}.")
        return await _model(connection, row)


@router.put("/models/{name}")
async def describe_model(name: str, body: Description, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Set a model's description."""
    async with control.change(who) as change:
        row = (await change.connection.execute(select(models).where(models.c.name == name))).one_or_none()
        if row is None:
            raise NotFound(f"There is no model {name!r}.")
        await change.connection.execute(
            models.update().where(models.c.name == name).values(description=body.description)
        )
        await change.audit("model.describe", name, description=body.description)
        row = (await change.connection.execute(select(models).where(models.c.name == name))).one()
        return await _model(change.connection, row)


@router.get("/models/{name}/versions")
async def list_versions(name: str, control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """All versions of a model, the last committed first."""
    async with control.database.read() as connection:
        if (await connection.execute(select(models.c.name).where(models.c.name == name))).one_or_none() is None:
            raise NotFound(f"There is no model {name!r}.")
        rows = await connection.execute(
            select(versions).where(versions.c.model == name).order_by(versions.c.number.desc())
        )
        return [_summary(row) for row in rows]


@router.get("/models/{name}/next")
async def next_label(
    name: str,
    control: ControlPart,
    _who: Reader,
    scheme: Literal["semantic", "date", "run"] | None = None,
    bump: Literal["major", "minor", "patch"] = "minor",
    pre: Annotated[str | None, Query(max_length=32, description="A pre-release of this name, such as rc.")] = None,
    experiment: Annotated[
        int | None, Query(ge=0, lt=10**18, description="Of the run scheme: the next run of it.")
    ] = None,
) -> dict[str, Any]:
    """The label that would come next; left out, the scheme is that of the last version."""
    check_name(name)
    async with control.database.read() as connection:
        statement = select(versions.c.label).where(versions.c.model == name).order_by(versions.c.number)
        labels = [parse_label(text) for text in (await connection.execute(statement)).scalars()]
    followed = scheme or ("run" if experiment is not None else labels[-1].scheme if labels else "semantic")
    last = newest(labels, followed)
    today = dt.datetime.fromtimestamp(control.clock(), dt.UTC).date()
    return {
        "scheme": followed,
        "newest": last.text if last is not None else None,
        "next": suggest_next(labels, followed, today=today, bump=bump, pre=pre, experiment=experiment),
    }


@router.get("/models/{name}/versions/{label}")
async def show_version(name: str, label: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """One version, by its label, its digest, or @ENVIRONMENT: files, builds, card, metadata."""
    async with control.database.read() as connection:
        return await version_detail(connection, await find_version(connection, reference_in(name, label)))


@router.get("/resolve")
async def resolve(ref: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """The version that a reference names: NAME:LABEL, NAME@ALIAS, NAME@sha256:... or NAME-vX.Y.Z."""
    async with control.database.read() as connection:
        return await version_detail(connection, await find_version(connection, parse_reference(ref)))


@router.get("/models/{name}/versions/{label}/manifest")
async def manifest_of(name: str, label: str, control: ControlPart, _who: Reader) -> Response:
    """The manifest, byte for byte: its SHA-256 is the version's digest."""
    async with control.database.read() as connection:
        row = await find_version(connection, reference_in(name, label))
    return Response(row.manifest, media_type="application/json", headers={"x-penstock-digest": row.digest})


@router.get("/models/{name}/versions/{label}/files/{path:path}", response_class=Response)
async def file_of(name: str, label: str, path: str, control: ControlPart, _who: Reader) -> Response:
    """One file; its bytes are checked while they are sent, and a damaged file breaks off."""
    async with control.database.read() as connection:
        row = await find_version(connection, reference_in(name, label))
    entry = read_manifest(row.manifest, row.digest).files.get(path)
    if entry is None:
        raise NotFound(f"{row.model}:{row.label} has no file {path!r}.")
    return await _stream(control, entry.digest)


async def _stream(control: ControlPart, digest: str) -> Response:
    size = await control.blobs.size(digest)
    if size is None:
        raise NotFound(f"There is no blob {digest}.")
    headers = {"content-length": str(size), "etag": f'"{digest}"', "x-penstock-digest": digest}
    if size <= PIECE:  # checked before the answer begins
        return Response(await control.blobs.get(digest), media_type="application/octet-stream", headers=headers)
    return StreamingResponse(control.blobs.stream(digest), media_type="application/octet-stream", headers=headers)
