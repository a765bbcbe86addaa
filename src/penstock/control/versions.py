"""Models and versions: pushed by manifest, immutable once committed, found by label, environment or digest."""

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError
from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.context import Change, Control
from penstock.control.errors import validation_error
from penstock.control.refusals import check_metadata
from penstock.control.specs import PriceSpec
from penstock.core.digests import short
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.core.references import Reference, check_name, parse_reference
from penstock.registry.builds import builds_of
from penstock.registry.card import parse_card
from penstock.registry.files import refuse_pickle_bytes, refuse_pickle_name
from penstock.registry.manifest import Manifest, canonical, make_manifest, manifest_digest, read_manifest
from penstock.registry.schemes import parse_label
from penstock.store.schema import builds, deployments, models, revisions, uploads, versions

_MAX_METADATA_BYTES = 1 << 20
_MAX_CARD_BYTES = 1 << 20
_HEAD = 512  # bytes in which a pickle shows itself


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a push announces."""

    model: str
    label: str
    manifest: Manifest
    metadata: dict[str, Any]
    idempotency_key: str


def new_version(
    model: str, label: str, files: Mapping[str, tuple[str, int]], metadata: dict[str, Any], idempotency_key: str
) -> NewVersion:
    """What a push announces, checked.

    Raises:
        BadRequest: naming the field: a name, label, path, digest or size that is not allowed, a pickle, metadata over 1 MiB
            or with a price or refusals that are none.
    """
    check_name(model, "model")
    try:
        parse_reference(model)
    except BadRequest:
        pass
    else:
        raise BadRequest(f"{model!r} is a model's name and a label in one: push it as NAME:LABEL.", param="model")
    parse_label(label)
    manifest = make_manifest(files)
    for path in manifest.files:
        refuse_pickle_name(path)
    if len(msgspec.json.encode(metadata)) > _MAX_METADATA_BYTES:
        raise BadRequest("The metadata has more than 1 MiB.", param="metadata")
    if "price" in metadata:
        _check_price(metadata["price"])
    if "refusals" in metadata:
        check_metadata(metadata["refusals"])
    return NewVersion(model=model, label=label, manifest=manifest, metadata=metadata, idempotency_key=idempotency_key)


def _check_price(price: object) -> None:
    try:
        PriceSpec.model_validate(price)
    except ValidationError as error:
        raise validation_error(error, "metadata.price") from None


async def begin_upload(control: Control, new: NewVersion, caller: Principal) -> Any:
    """The upload of `new`: one that the same caller began with the same idempotency key goes on.

    Raises:
        Conflict: if the key was used for something else, or the label is taken.
    """
    digest = manifest_digest(new.manifest)
    async with control.database.write() as connection:
        mine = (uploads.c.principal == caller.name) & (uploads.c.idempotency_key == new.idempotency_key)
        row = (await connection.execute(select(uploads).where(mine))).one_or_none()
        if row is None:
            await _check_free(connection, new.model, new.label, digest)
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
                    state="open",
                    created_at=control.clock(),
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
        return row


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


async def missing_blobs(control: Control, manifest: Manifest) -> list[str]:
    """The digests of `manifest` that the store does not hold yet, each once.

    Raises:
        Conflict: if a blob is there with another size than the manifest says.
    """
    wanted = {entry.digest: (path, entry.size) for path, entry in manifest.files.items()}
    missing = []
    for digest, (path, size) in wanted.items():
        stored = await control.blobs.size(digest)
        if stored is None:
            missing.append(digest)
        elif stored != size:
            raise BadRequest(f"{path!r} has {stored} bytes, the manifest says {size}.", param=f"files.{path}.size")
    return missing


async def commit_upload(control: Control, identity: str, caller: Principal) -> Any:
    """Make the upload a version, which nothing changes any more; committing again gives the same version.

    Raises:
        NotFound: if the caller began no such upload.
        Conflict: if blobs are missing, or the label was taken meanwhile.
        BadRequest: if a file turns out to be a pickle, or the card is not readable.
    """
    async with control.database.read() as connection:
        upload = await find_upload(connection, identity, caller)
        if upload.state == "committed":
            return await _row(connection, upload.model, upload.label)
    manifest = read_manifest(upload.manifest, upload.digest)
    missing = await missing_blobs(control, manifest)
    if missing:
        raise Conflict(
            f"{len(missing)} of the files of {upload.model}:{upload.label} are not there yet: {short(missing[0])} and so on.",
            code="blobs_missing",
        )
    card = await _inspect(control, manifest)
    try:
        async with control.change(caller) as change:
            return await _commit(change, upload, manifest, card)
    except IntegrityError:
        raise _taken(upload.model, upload.label) from None


async def _inspect(control: Control, manifest: Manifest) -> str:
    for path, entry in manifest.files.items():
        head = b""
        async for piece in control.blobs.stream(entry.digest):
            head += piece[:_HEAD]
            break
        refuse_pickle_bytes(path, head[:_HEAD])
    readme = manifest.files.get("README.md")
    if readme is None:
        return ""
    if readme.size > _MAX_CARD_BYTES:
        raise BadRequest("README.md, the card, has more than 1 MiB.", param="files.README.md")
    try:
        text = (await control.blobs.get(readme.digest)).decode()
    except UnicodeDecodeError:
        raise BadRequest("README.md, the card, is not UTF-8.", param="files.README.md") from None
    if "\x00" in text:
        raise BadRequest("README.md, the card, holds a NUL.", param="files.README.md")
    parse_card(text)
    return text


async def _commit(change: Change, upload: Any, manifest: Manifest, card: str) -> Any:
    connection = change.connection
    state = (await connection.execute(select(uploads.c.state).where(uploads.c.id == upload.id))).scalar_one()
    if state == "committed":
        return await _row(connection, upload.model, upload.label)
    await _check_free(connection, upload.model, upload.label, upload.digest)
    known = await connection.execute(select(models.c.name).where(models.c.name == upload.model))
    if known.one_or_none() is None:
        await connection.execute(
            insert(models).values(name=upload.model, created_at=change.now, created_by=change.caller.name)
        )
    statement = select(func.coalesce(func.max(versions.c.number), 0)).where(versions.c.model == upload.model)
    number = (await connection.execute(statement)).scalar_one() + 1
    await connection.execute(
        insert(versions).values(
            model=upload.model,
            label=upload.label,
            digest=upload.digest,
            scheme=parse_label(upload.label).scheme,
            number=number,
            state="committed",
            manifest=upload.manifest,
            metadata=upload.metadata,
            card=card,
            size=manifest.size,
            created_at=change.now,
            created_by=change.caller.name,
        )
    )
    for build in builds_of(manifest):
        await connection.execute(
            insert(builds).values(
                model=upload.model,
                label=upload.label,
                precision=build.precision,
                engine=build.engine,
                folder=build.folder,
                digest=build.digest,
                size=build.manifest.size,
                created_at=change.now,
            )
        )
    await connection.execute(update(uploads).where(uploads.c.id == upload.id).values(state="committed"))
    await change.audit("version.commit", f"{upload.model}:{upload.label}", digest=upload.digest, number=number)
    return await _row(connection, upload.model, upload.label)


async def _check_free(connection: AsyncConnection, model: str, label: str, digest: str) -> None:
    statement = select(versions.c.digest).where(versions.c.model == model, versions.c.label == label)
    taken = (await connection.execute(statement)).scalar_one_or_none()
    if taken is not None:
        raise _taken(model, label, same=taken == digest)


def _taken(model: str, label: str, *, same: bool = False) -> Conflict:
    what = " with the very same files" if same else ""
    return Conflict(
        f"{model}:{label} is committed already{what}; a label is never used again.",
        code="label_taken",
        param="label",
        hint="Push under the next label." if not same else None,
    )


async def _row(connection: AsyncConnection, model: str, label: str) -> Any:
    statement = select(versions).where(versions.c.model == model, versions.c.label == label)
    return (await connection.execute(statement)).one_or_none()


async def find_version(connection: AsyncConnection, reference: Reference) -> Any:
    """The row of the version that `reference` names; an alias is an environment (what it serves), or `latest` (by commit).

    Raises:
        NotFound: if there is none.
    """
    mine = select(versions).where(versions.c.model == reference.name)
    if reference.label is not None:
        statement = mine.where(versions.c.label == reference.label)
    elif reference.digest is not None:
        statement = mine.where(versions.c.digest == reference.digest).order_by(versions.c.number)
    elif reference.alias == "latest":
        statement = mine.order_by(versions.c.number.desc())
    else:
        serving = (
            select(revisions.c.label)
            .join(deployments, deployments.c.live == revisions.c.id)
            .where(deployments.c.environment == reference.alias, deployments.c.model == reference.name)
        )
        statement = mine.where(versions.c.label.in_(serving))
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
