"""Models and versions: pushed by manifest, immutable once committed, found by label, environment or digest."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change, Control
from penstock.control.figures.refusals import check_metadata
from penstock.control.specs.version import check_version_metadata
from penstock.control.versions.cards import check_card, first_card
from penstock.control.versions.contents import check_contents
from penstock.control.versions.lineage import resolve_edges, write_edges
from penstock.core.errors import BadRequest, Conflict
from penstock.core.references import check_name, parse_reference
from penstock.registry.builds import builds_of
from penstock.registry.files import refuse_pickle_name
from penstock.registry.layout import LENGTH_BYTES, MAX_HEADER, read_header
from penstock.registry.manifest import Manifest, canonical, make_manifest, manifest_digest
from penstock.registry.schemes import parse_label, twin
from penstock.store.schema import builds, models, uploads, versions

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
    model: str,
    label: str,
    files: Mapping[str, tuple[str, int]],
    metadata: dict[str, Any],
    idempotency_key: str,
    *,
    pickles: bool = False,
) -> NewVersion:
    """What a push announces, checked. With `pickles` those of PyTorch's tensors are let by, to be scanned when they are there.

    Raises:
        BadRequest: naming the field: a name, label, path, digest or size that is not allowed, a pickle, metadata over 1 MiB
            or with a field that is not known or not right.
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
        refuse_pickle_name(path, tensors=pickles)
    if len(msgspec.json.encode(metadata)) > _MAX_METADATA_BYTES:
        raise BadRequest("The metadata has more than 1 MiB.", param="metadata")
    check_version_metadata(metadata)
    if "refusals" in metadata:
        check_metadata(metadata["refusals"])
    return NewVersion(model=model, label=label, manifest=manifest, metadata=metadata, idempotency_key=idempotency_key)


async def inspect_files(control: Control, manifest: Manifest) -> str:
    """Look into the files of a version that is about to be committed; gives its card.

    Raises:
        BadRequest: if one is a pickle, has a header that lies or holds processing or code that no engine could run, or the card is not readable.
    """
    heads: dict[str, bytes] = {}
    for path, entry in manifest.files.items():
        head = heads[path] = await control.blobs.head(entry.digest, _HEAD)
        if path.lower().endswith(".safetensors"):
            length = min(int.from_bytes(head[:LENGTH_BYTES], "little"), MAX_HEADER) + LENGTH_BYTES
            read_header(await control.blobs.head(entry.digest, length), entry.size, path)
    await check_contents(control, manifest, heads)
    readme = manifest.files.get("README.md")
    if readme is None:
        return ""
    if readme.size > _MAX_CARD_BYTES:
        raise BadRequest("README.md, the card, has more than 1 MiB.", param="files.README.md")
    try:
        text = (await control.blobs.get(readme.digest)).decode()
    except UnicodeDecodeError:
        raise BadRequest("README.md, the card, is not UTF-8.", param="files.README.md") from None
    check_card(text)
    return text


async def commit_version(change: Change, upload: Any, manifest: Manifest, card: str) -> Any:
    """The row of the version that `upload` becomes, with the files of `manifest`; of one that it has become already, that.

    Raises:
        Conflict: if the label was taken meanwhile.
    """
    digest = manifest_digest(manifest)
    connection = change.connection
    state = (await connection.execute(select(uploads.c.state).where(uploads.c.id == upload.id))).scalar_one()
    if state == "committed":
        return await find_row(connection, upload.model, upload.label)
    await check_free(connection, upload.model, upload.label, digest)
    edges = await resolve_edges(connection, check_version_metadata(upload.metadata))
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
            digest=digest,
            scheme=parse_label(upload.label).scheme,
            number=number,
            state="committed",
            manifest=canonical(manifest).decode(),
            metadata=upload.metadata,
            card=card,
            size=manifest.size,
            created_at=change.now,
            created_by=change.caller.name,
            pushed_by=change.caller.person,
            pushed_with=change.caller.key,
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
    await first_card(change, upload.model, upload.label, card)
    await write_edges(change, upload.model, upload.label, edges)
    await connection.execute(update(uploads).where(uploads.c.id == upload.id).values(state="committed"))
    await change.audit("version.commit", f"{upload.model}:{upload.label}", digest=digest, number=number)
    return await find_row(connection, upload.model, upload.label)


async def check_free(connection: AsyncConnection, model: str, label: str, digest: str) -> None:
    """See that the label was never used.

    Raises:
        Conflict: if it was.
    """
    names = [label, *([other] if (other := twin(parse_label(label))) is not None else [])]
    statement = select(versions.c.label, versions.c.digest, versions.c.state).where(
        versions.c.model == model, versions.c.label.in_(names)
    )
    row = (await connection.execute(statement)).first()
    if row is not None:
        raise taken(model, row.label, same=row.digest == digest, deleted=row.state == "deleted")


def taken(model: str, label: str, *, same: bool = False, deleted: bool = False) -> Conflict:
    """What is said of a label that is taken; `same`: by the very same files."""
    what = " with the very same files" if same else ""
    what += ", and was deleted" if deleted else ""
    return Conflict(
        f"{model}:{label} is committed already{what}; a label is never used again.",
        code="label_taken",
        param="label",
        hint=f"Push under the next label: penstock models next {model}." if not same else None,
    )


async def find_row(connection: AsyncConnection, model: str, label: str) -> Any:
    """The row of a version; None if there is none."""
    statement = select(versions).where(versions.c.model == model, versions.c.label == label)
    return (await connection.execute(statement)).one_or_none()
