"""/api/v1/uploads and /api/v1/blobs, by which versions are pushed; the blocks of versions, by which they are fetched."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.api.models import version_detail
from penstock.control.auth import ControlPart, needs
from penstock.control.sockets import body_of
from penstock.control.specs.resources import Spec
from penstock.control.specs.version import check_version_metadata
from penstock.control.storage.fetching import hold, recipes_of
from penstock.control.storage.sending import blocks_response
from penstock.control.storage.uploads import (
    Missing,
    begin_upload,
    commit_upload,
    find_upload,
    give_up,
    missing_of,
    pushes_of,
    standing,
    take_blocks,
)
from penstock.control.versions.contents import pickles_allowed
from penstock.control.versions.find import find_version, reference_in
from penstock.control.versions.lineage import resolve_edges
from penstock.control.versions.rows import new_version
from penstock.core.digests import is_digest
from penstock.core.errors import BadRequest, NotFound
from penstock.registry.blocks import MAX_BATCH_BLOCKS, MAX_BATCH_BYTES, Block, Recipe, check_recipe
from penstock.registry.files import check_paths
from penstock.registry.manifest import read_manifest
from penstock.store.schema import uploads

router = APIRouter(tags=["models"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]


class NewFile(Spec):
    """One file of a push: its digest, its blocks, or both. What is announced with blocks is put as blocks."""

    digest: str | None = Field(default=None, description="sha256: and 64 digits; with blocks it may be left out.")
    size: int
    blocks: list[list[str | int]] | None = Field(
        default=None, description="In order: the BLAKE3 (64 digits) and size of each, at most 4 MiB."
    )


class NewUpload(Spec):
    """The body of POST /models/{name}/uploads."""

    label: str
    files: dict[str, NewFile] = Field(min_length=1)
    metadata: dict[str, Any] = Field(default_factory=dict)
    idempotency_key: str = Field(min_length=1, max_length=128)


class WantedBlocks(Spec):
    """The body of POST /models/{name}/versions/{label}/blocks."""

    blocks: list[str] = Field(min_length=1, max_length=MAX_BATCH_BLOCKS)


@router.post("/models/{name}/uploads", status_code=201)
async def new_upload(name: str, body: NewUpload, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Begin a push, or go on with one of the same idempotency key; `missing` are files, `missing_blocks` blocks still to be put."""
    check_paths(body.files)
    files: dict[str, tuple[str, int]] = {}
    recipes: dict[str, Recipe] = {}
    for path, entry in body.files.items():
        if entry.blocks is None:
            if entry.digest is None:
                raise BadRequest(f"{path!r} has neither a digest nor blocks.", param=f"files.{path}.digest")
            files[path] = (entry.digest, entry.size)
            continue
        recipe = check_recipe(entry.blocks, entry.size, path)
        digest = entry.digest or standing(recipe)
        files[path] = (digest, entry.size)
        recipes[digest] = recipe
    async with control.database.read() as connection:
        pickles = await pickles_allowed(connection)
        new = new_version(name, body.label, files, body.metadata, body.idempotency_key, pickles=pickles)
        await resolve_edges(connection, check_version_metadata(new.metadata))  # before any byte is sent for nothing
    row = await begin_upload(control, new, who, recipes)
    return _upload(row, await missing_of(control, row))


@router.get("/uploads")
async def list_uploads(control: ControlPart, who: Writer) -> list[dict[str, Any]]:
    """The pushes that you have under way, newest first."""
    return [
        {
            "id": row.id,
            "model": row.model,
            "label": row.label,
            "size": row.size,
            "created_at": row.created_at,
            "lease_until": row.lease_until,
        }
        for row in await pushes_of(control, who)
    ]


@router.delete("/uploads/{identity}", status_code=204)
async def end_upload(identity: str, control: ControlPart, who: Writer) -> None:
    """Give a push up: what it brought and nothing else needs is removed."""
    await give_up(control, identity, who)


@router.get("/uploads/{identity}")
async def show_upload(identity: str, control: ControlPart, who: Writer) -> dict[str, Any]:
    """How far a push is."""
    async with control.database.read() as connection:
        row = await find_upload(connection, identity, who)
    return _upload(row, await missing_of(control, row))


@router.post("/uploads/{identity}/commit")
async def commit(identity: str, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Make it a version. Committing again gives the same version."""
    row = await commit_upload(control, identity, who)
    async with control.database.read() as connection:
        return await version_detail(connection, row)


def _upload(row: Any, missing: Missing) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.model,
        "label": row.label,
        "digest": row.digest,
        "state": row.state,
        "missing": list(missing.files),
        "missing_blocks": [[block.name, block.size] for block in missing.blocks],
    }


@router.post("/blobs/blocks", status_code=201)
async def put_blocks(upload: str, request: Request, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Store blocks that the open push `upload` announced: their number (4 bytes, big-endian), of each the BLAKE3 (32 bytes) and size (4), then their bytes."""
    async with body_of(request, control.movers, MAX_BATCH_BYTES) as body:
        return {"bytes": await take_blocks(control, upload, who, body)}


@router.put("/blobs/{digest}", status_code=201)
async def put_blob(digest: str, request: Request, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Store a file's bytes, streamed. They must be those of `digest`, and an open upload of yours must want them."""
    size = await _announced(control, digest, who)
    return {"digest": digest, "size": await control.blobs.put_new(digest, _pieces(request), size=size)}


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


async def _announced(control: ControlPart, digest: str, who: Principal) -> int:
    if not is_digest(digest):
        raise BadRequest(f"{digest!r} is not a digest: sha256: and 64 hexadecimal digits.", param="digest")
    async with control.database.read() as connection:
        statement = select(uploads.c.manifest, uploads.c.digest).where(
            uploads.c.principal == who.name,
            uploads.c.state == "open",
            uploads.c.manifest.contains(digest, autoescape=True),
        )
        for row in await connection.execute(statement):
            for entry in read_manifest(row.manifest, row.digest).files.values():
                if entry.digest == digest:
                    return entry.size
    raise NotFound(f"No upload of yours holds a file {digest}.", hint="POST /api/v1/models/NAME/uploads first.")


@router.get("/models/{name}/versions/{label}/blocks")
async def blocks_of(name: str, label: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """Of each file the digest, size and blocks in order. The version's bytes stay for an hour from then on, whatever becomes of it."""
    async with control.database.read() as connection:
        row = await find_version(connection, reference_in(name, label))
    recipes = await recipes_of(control, row)
    await hold(control, row.digest)
    return {
        "model": row.model,
        "label": row.label,
        "digest": row.digest,
        "files": {
            path: {"digest": digest, "size": size, "blocks": None if recipe is None else _told(recipe)}
            for path, (digest, size, recipe) in recipes.items()
        },
    }


def _told(recipe: Sequence[Block]) -> list[list[Any]]:
    return [[block.name, block.size] for block in recipe]


@router.post("/models/{name}/versions/{label}/blocks", response_class=StreamingResponse)
async def read_blocks(
    name: str, label: str, body: WantedBlocks, request: Request, control: ControlPart, _who: Reader
) -> Response:
    """The bytes of those blocks of the version, one after the other as they were asked for. Whoever asked checks them by their names."""
    async with control.database.read() as connection:
        row = await find_version(connection, reference_in(name, label))
    recipes = await recipes_of(control, row)
    known = {block.name: block for _, _, recipe in recipes.values() for block in recipe or ()}
    strange = [text for text in body.blocks if text not in known]
    if strange:
        raise NotFound(f"{row.model}:{row.label} has no block {strange[0][:64]!r}.")
    await hold(control, row.digest)
    return blocks_response(request, control, [known[text] for text in body.blocks])
