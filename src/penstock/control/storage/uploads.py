"""Pushes under way: announced with the blocks of their files, filled in any order, committed once every digest was seen to be right."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.context import Control
from penstock.control.sockets import LoopBody, SocketBody
from penstock.control.storage.sweep import sweep
from penstock.control.versions.rows import NewVersion, check_free, commit_version, find_row, inspect_files, taken
from penstock.core.digests import short
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.registry.blocks import (
    BATCH_COUNT,
    Block,
    Recipe,
    batch_head_length,
    pack_recipe,
    read_batch_head,
    seal_of,
    unpack_recipe,
)
from penstock.registry.manifest import Manifest, canonical, manifest_digest, read_manifest
from penstock.store.block_index import bind_file, known_by_seal, touch_blocks, touch_file
from penstock.store.schema import uploads
from penstock.store.schema_storage import upload_files

LEASE_S = 86400.0  # the blocks of an open upload are kept for so long after its last call


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload still lacks: files that were announced without blocks, by digest, and blocks, in the order of the files."""

    files: tuple[str, ...] = ()
    blocks: Recipe = ()


async def begin_upload(
    control: Control, new: NewVersion, caller: Principal, recipes: Mapping[str, Recipe] | None = None
) -> Any:
    """The upload of `new`: one that the same caller began with the same idempotency key goes on.

    Args:
        control: the stores.
        new: what is announced.
        caller: by whom.
        recipes: by digest, the blocks of files that will come as blocks; the others come whole.

    Raises:
        Conflict: if the key was used for something else, or the label is taken.
        RateLimited: if the caller has as much under way as they may.
    """
    digest = manifest_digest(new.manifest)
    until = control.clock() + LEASE_S
    async with control.database.write() as connection:
        mine = (uploads.c.principal == caller.name) & (uploads.c.idempotency_key == new.idempotency_key)
        row = (await connection.execute(select(uploads).where(mine))).one_or_none()
        if row is None:
            await check_free(connection, new.model, new.label, digest)
            await control.bounds.check_push(connection, caller, new.manifest.size)
            insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            await connection.execute(
                insertion(uploads)
                .values(
                    id=control.new_id("up"),
                    idempotency_key=new.idempotency_key,
                    principal=caller.name,
                    model=new.model,
                    label=new.label,
                    digest=digest,
                    manifest=canonical(new.manifest).decode(),
                    metadata=new.metadata,
                    size=new.manifest.size,
                    state="open",
                    created_at=control.clock(),
                    lease_until=until,
                )
                .on_conflict_do_nothing()
            )
            row = (await connection.execute(select(uploads).where(mine))).one()
        if (row.model, row.label, row.digest) != (new.model, new.label, digest):
            raise Conflict(
                f"This idempotency key began the push of {row.model}:{row.label} with other content.",
                code="idempotency_key_reused",
                param="idempotency_key",
            )
        if row.state == "open":
            await connection.execute(update(uploads).where(uploads.c.id == row.id).values(lease_until=until))
            await _announce(connection, row.id, recipes or {})
        return row


async def _announce(connection: AsyncConnection, identity: str, recipes: Mapping[str, Recipe]) -> None:
    await connection.execute(delete(upload_files).where(upload_files.c.upload == identity))
    rows = []
    for digest, recipe in recipes.items():
        raw = pack_recipe(recipe)
        rows.append({"upload": identity, "digest": digest, "seal": seal_of(raw), "blocks": raw})
    if rows:
        await connection.execute(insert(upload_files), rows)


async def find_upload(connection: AsyncConnection, identity: str, caller: Principal) -> Any:
    """The upload `identity`.

    Raises:
        NotFound: if the caller began none such.
    """
    statement = select(uploads).where(uploads.c.id == identity, uploads.c.principal == caller.name)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise NotFound(f"There is no upload {identity!r} of yours.")
    return row


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an upload that comes as blocks."""

    seal: str
    blocks: Recipe


async def announced_recipes(connection: AsyncConnection, identity: str) -> dict[str, Announced]:
    """Those files of an upload that come as blocks, by what they stand under in its manifest."""
    rows = await connection.execute(select(upload_files).where(upload_files.c.upload == identity))
    return {row.digest: Announced(seal=row.seal, blocks=unpack_recipe(row.blocks)) for row in rows}


def standing(recipe: Recipe) -> str:
    """What a file whose SHA-256 is not announced stands under in an open upload's manifest, written as a digest: its seal."""
    return "sha256:" + seal_of(pack_recipe(recipe))


async def missing_of(control: Control, upload: Any) -> Missing:
    """What the open `upload` lacks; what is there is kept for it from now on.

    Raises:
        BadRequest: if a file is there with another size than the manifest says.
    """
    if upload.state != "open":
        return Missing()
    manifest = read_manifest(upload.manifest, upload.digest)
    entries = {entry.digest: (path, entry.size) for path, entry in manifest.files.items()}
    files: list[str] = []
    unbound: dict[str, Recipe] = {}
    wanted: dict[str, Block] = {}
    async with control.database.write() as connection:
        now = control.clock()
        recipes = await announced_recipes(connection, upload.id)
        known = await known_by_seal(connection, (one.seal for one in recipes.values()))
        for digest, (path, size) in entries.items():
            recipe = recipes.get(digest)
            stored = await touch_file(connection, known.get(recipe.seal, digest) if recipe else digest, now)
            if stored is not None:
                _check_size(path, stored.size, size)
            elif recipe is not None:
                unbound[recipe.seal] = recipe.blocks
                wanted |= {block.name: block for block in recipe.blocks}
            else:
                files.append(digest)
        there = await touch_blocks(connection, wanted, now)
        await connection.execute(update(uploads).where(uploads.c.id == upload.id).values(lease_until=now + LEASE_S))
    for digest in list(files):
        whole = await control.blobs.whole.size(digest)
        if whole is not None:
            _check_size(entries[digest][0], whole, entries[digest][1])
            files.remove(digest)
    if unbound:
        control.binder.follow(upload.id, unbound, wanted.keys() - there)
    return Missing(files=tuple(files), blocks=tuple(block for name, block in wanted.items() if name not in there))


def _check_size(path: str, stored: int, announced: int) -> None:
    if stored != announced:
        raise BadRequest(f"{path!r} has {stored} bytes, the manifest says {announced}.", param=f"files.{path}.size")


async def take_blocks(control: Control, identity: str, caller: Principal, body: LoopBody | SocketBody) -> int:
    """Store the blocks in `body` (`registry.blocks.batch_head`, then their bytes), which the upload announced; how many bytes they have.

    Raises:
        NotFound: if the caller began no such upload, or it is not open.
        BadRequest: if a block was not announced, or has other bytes than its name says; nothing is stored then.
        Unavailable: if the store or the database cannot be written.
    """
    head = await body.exactly(BATCH_COUNT)
    length = batch_head_length(head)
    head += await body.exactly((length or BATCH_COUNT) - BATCH_COUNT)
    if length is None or len(head) < length:
        raise BadRequest("The body ends before the list of its blocks does.", param="body")
    recipe = read_batch_head(head)
    async with control.database.read() as connection:
        upload = await find_upload(connection, identity, caller)
        if upload.state != "open":
            raise NotFound(f"The upload {identity!r} is {upload.state}, and takes no more blocks.")
        announced = {block for one in (await announced_recipes(connection, identity)).values() for block in one.blocks}
    if upload.lease_until < control.clock() + LEASE_S / 2:
        async with control.database.write() as connection:
            lease = update(uploads).where(uploads.c.id == identity)
            await connection.execute(lease.values(lease_until=control.clock() + LEASE_S))
    for block in recipe:
        if block not in announced:
            raise BadRequest(f"The block {block.name[:12]} of {block.size} bytes was not announced.", param="body")
    intake = await control.blobs.intake(recipe, partial(control.binder.came, identity))
    try:
        await body.into(intake)
        await intake.finish()
    except BaseException:
        await intake.abort()
        raise
    control.binder.stored(identity, (block.name for block in recipe))
    return sum(block.size for block in recipe)


async def commit_upload(control: Control, identity: str, caller: Principal) -> Any:
    """Make the upload a version, which nothing changes any more; committing again gives the same version.

    Raises:
        NotFound: if the caller began no such upload.
        Conflict: if blocks are missing, or the label was taken meanwhile.
        BadRequest: if a file is not that of its digest, is a pickle or has a header that lies, or the card is not readable.
    """
    async with control.database.read() as connection:
        upload = await find_upload(connection, identity, caller)
        if upload.state == "committed":
            return await find_row(connection, upload.model, upload.label)
        recipes = await announced_recipes(connection, identity)
    manifest = read_manifest(upload.manifest, upload.digest)
    missing = await missing_of(control, upload)
    if missing.files or missing.blocks:
        first = short(missing.files[0]) if missing.files else f"the block {missing.blocks[0].name[:12]}"
        raise Conflict(
            f"{len(missing.files)} files and {len(missing.blocks)} blocks of {upload.model}:{upload.label} are not there yet: "
            f"{first} and so on.",
            code="blobs_missing",
        )
    try:
        manifest = await _bind(control, upload, manifest, recipes)
        card = await inspect_files(control, manifest)
    except BadRequest:
        await _refuse(control, upload, manifest, recipes)
        raise
    try:
        async with control.change(caller) as change:
            if not await _touch_all(control, change.connection, manifest):
                raise Conflict(f"Files of {upload.model}:{upload.label} are not there any more.", code="blobs_missing")
            row = await commit_version(change, upload, manifest, card)
            await change.connection.execute(delete(upload_files).where(upload_files.c.upload == identity))
    except IntegrityError:
        raise taken(upload.model, upload.label) from None
    control.binder.forget(identity)
    return row


async def give_up(control: Control, identity: str, caller: Principal) -> None:
    """End a push that is under way, and remove what it brought and nothing else needs.

    Raises:
        NotFound: if the caller began no such upload.
        Conflict: if it is a version already.
    """
    async with control.database.read() as connection:
        upload = await find_upload(connection, identity, caller)
        if upload.state != "open":
            raise Conflict(f"The upload {identity!r} is {upload.state} already.")
        recipes = await announced_recipes(connection, identity)
    await _refuse(control, upload, read_manifest(upload.manifest, upload.digest), recipes)


async def pushes_of(control: Control, caller: Principal) -> list[Any]:
    """The pushes that the caller has under way, newest first."""
    mine = (uploads.c.principal == caller.name) & (uploads.c.state == "open")
    async with control.database.read() as connection:
        return list(await connection.execute(select(uploads).where(mine).order_by(uploads.c.created_at.desc())))


async def _refuse(control: Control, upload: Any, manifest: Manifest, recipes: Mapping[str, Announced]) -> None:
    """End the upload, and remove what it brought and nothing else needs."""
    async with control.database.write() as connection:
        await connection.execute(delete(upload_files).where(upload_files.c.upload == upload.id))
        await connection.execute(delete(uploads).where(uploads.c.id == upload.id))
    control.binder.forget(upload.id)
    brought = {block for one in recipes.values() for block in one.blocks}
    for entry in manifest.files.values():
        file = await control.blobs.file(entry.digest)
        brought.update(file.recipe if file is not None else ())
    await sweep(control, grace_s=0.0, only=brought)


async def _bind(control: Control, upload: Any, manifest: Manifest, recipes: Mapping[str, Announced]) -> Manifest:
    """The manifest with the SHA-256 of every file, each seen to be that of its blocks."""
    if not recipes:
        return manifest
    async with control.database.read() as connection:
        digests = await known_by_seal(connection, (one.seal for one in recipes.values()))
    unbound = {one.seal: one.blocks for one in recipes.values() if one.seal not in digests}
    if unbound:
        digests |= await control.binder.digests(upload.id, unbound)
    files = {}
    for path, entry in manifest.files.items():
        announced = recipes.get(entry.digest)
        seen = digests[announced.seal] if announced is not None else entry.digest
        if announced is not None and entry.digest not in {seen, "sha256:" + announced.seal}:
            raise BadRequest(
                f"The blocks of {path!r} are those of {seen}, and {entry.digest} was announced.",
                code="digest_mismatch",
                param=f"files.{path}.digest",
            )
        files[path] = msgspec.structs.replace(entry, digest=seen)
    async with control.database.write() as connection:
        for seal, blocks in unbound.items():
            size = sum(block.size for block in blocks)
            if not await bind_file(connection, digests[seal], size, pack_recipe(blocks), control.clock()):
                raise Conflict(f"Blocks of {upload.model}:{upload.label} are not there any more.", code="blobs_missing")
    return Manifest(files=files)


async def _touch_all(control: Control, connection: AsyncConnection, manifest: Manifest) -> bool:
    for digest in {entry.digest for entry in manifest.files.values()}:
        if (
            await touch_file(connection, digest, control.clock()) is None
            and await control.blobs.whole.size(digest) is None
        ):
            return False
    return True
