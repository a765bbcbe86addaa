"""`penstock models export|import`: a version as one file, for sites without a network."""

import datetime as dt
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from penstock.cli.client import at
from penstock.cli.models.progress import progress_of
from penstock.cli.models.push import push_files
from penstock.cli.session import Session, with_session
from penstock.core.digests import short
from penstock.core.errors import BadRequest, Conflict, Damaged, NotFound
from penstock.core.references import Reference, parse_reference
from penstock.registry.oci import (
    MOST_DOCUMENT,
    MOST_MEMBERS,
    Read,
    Told,
    digest_of_member,
    make_layout,
    read_layout,
)
from penstock.registry.tar import BLOCK, make_head, padded, read_extended, read_head

if TYPE_CHECKING:
    from rich.progress import Progress

_PIECE = 1 << 20


# -- export ------------------------------------------------------------------------------------------------------------


@click.command("export")
@click.argument("reference", metavar="REF")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@with_session
def export(session: Session, reference: str, file: Path) -> None:
    """Write a version as one file: an OCI image layout in a tar archive, with its card, evaluations and signatures.

    Any tool that reads OCI layouts opens it; 'penstock models import' takes it in elsewhere, under the same digest.
    """
    parse_reference(reference)
    if file.exists():
        raise Conflict(f"{file} is there already.", param="FILE")
    found = session.api.get("/resolve", ref=reference)
    version = at("models", found["model"], "versions", found["digest"])
    told = Told(
        model=found["model"],
        label=found["label"],
        manifest=session.api.text(f"{version}/manifest").encode(),
        metadata=found["metadata"],
        licence=str(found["metadata"].get("licence", "")),
        evaluations=_evaluations(session, found),
        signatures=[
            {"public": one["public"], "envelope": one["envelope"]} for one in session.api.get(f"{version}/signatures")
        ],
    )
    created = dt.datetime.fromtimestamp(found["created_at"], dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    layout = make_layout(told, found["digest"], created)
    paths = {entry["digest"]: entry["path"] for entry in found["files"]}
    draft = file.with_name(f".{file.name}.part")
    try:
        with progress_of(session) as progress, draft.open("wb") as out:
            job = progress.add_task("writing", total=sum(layout.files.values()))
            for name, body in layout.documents.items():
                out.write(make_head(name, len(body)) + padded(body))
            for name, size in layout.files.items():
                if name not in layout.documents:  # a file whose bytes are those of a document
                    digest = f"sha256:{name.rpartition('/')[2]}"
                    _copy(session, version, paths[digest], digest, size, out, lambda n: progress.advance(job, n))
            out.write(bytes(2 * BLOCK))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    document = {key: found[key] for key in ("model", "label", "digest")} | {
        "file": str(file),
        "size": file.stat().st_size,
        "signatures": len(told.signatures),
        "evaluations": len(told.evaluations),
    }
    name = f"{found['model']}:{found['label']}"
    session.answer(document, lambda: click.echo(f"{name} is in {file}: {found['digest']}."))


def _evaluations(session: Session, found: dict[str, Any]) -> list[dict[str, Any]]:
    kept = (
        "suite",
        "suite_digest",
        "digest",
        "build",
        "precision",
        "settings",
        "engine_digest",
        "result",
        "finished_at",
    )
    rows = session.api.get("/evaluations", model=found["model"], label=found["label"], state="done", limit=1000)
    return [{name: one[name] for name in kept} for one in rows if one["kind"] == "suite"]


def _copy(session: Session, version: str, path: str, digest: str, size: int, out: BinaryIO, done: Any) -> None:
    out.write(make_head(f"blobs/sha256/{digest.removeprefix('sha256:')}", size))
    hashed, count = hashlib.sha256(), 0
    for piece in session.api.pieces(f"{version}/files{at(*path.split('/'))}"):
        hashed.update(piece)
        count += len(piece)
        out.write(piece)
        done(len(piece))
    if f"sha256:{hashed.hexdigest()}" != digest or count != size:
        raise Damaged(f"{path} arrived with other bytes than its digest names; nothing was kept of it.")
    out.write(bytes(-size % BLOCK))


# -- import ------------------------------------------------------------------------------------------------------------


def import_archive(session: Session, file: Path, name: str | None) -> None:
    """Register the version that `file` holds, under the digest that it had where it was exported, and answer with it.

    Raises:
        BadRequest: if the archive is refused.
        Damaged: if what was registered has another digest.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-import-") as folder:
        with progress_of(session) as progress:
            read, blobs = read_archive(file, Path(folder), progress)
        told = read.told
        wanted = parse_reference(name) if name is not None else Reference(name=told.model, label=told.label)
        if wanted.label is None:
            raise BadRequest(f"{name!r} has no label; write NAME:LABEL.", param="--as")
        paths = {path: blobs[entry.digest] for path, entry in read.manifest.files.items()}
        version = _push(session, wanted, paths, told)
    if version["digest"] != read.digest:
        raise Damaged(f"It was registered as {version['digest']}, and is {read.digest} by its own manifest.")
    kept = _bring_signatures(session, version, told)
    document = {key: version[key] for key in ("model", "label", "digest")} | {
        "signatures": kept,
        "untrusted": len(told.signatures) - len(kept),
    }

    def people() -> None:
        click.echo(f"{version['model']}:{version['label']} is registered as {version['digest']}.")
        if kept:
            click.echo(f"Signed by {', '.join(kept)}.")
        if document["untrusted"]:
            click.echo(f"{document['untrusted']} signatures are by keys that nobody here trusts.")

    session.answer(document, people)


def _push(session: Session, wanted: Reference, paths: dict[str, Path], told: Told) -> dict[str, Any]:
    """The version with the metadata that came with it; where they name what is not registered here, they are kept as an annotation."""
    notes = told.metadata.get("annotations")
    source = {"from": f"{told.model}:{told.label}", "evaluations": told.evaluations}
    own = {"annotations": {**(notes if isinstance(notes, dict) else {}), "imported": source}}
    try:
        return push_files(session, wanted, paths, {**told.metadata, **own})
    except (BadRequest, NotFound) as error:
        if not (error.param or "").startswith("metadata"):
            raise
    return push_files(session, wanted, paths, {"annotations": {"imported": {**source, "metadata": told.metadata}}})


def _bring_signatures(session: Session, version: dict[str, Any], told: Told) -> list[str]:
    """The names of the signers that are trusted here, of those who have signed it."""
    trusted = {one["public"]: one["name"] for one in session.api.get("/signers") if one["revoked_at"] is None}
    path = f"{at('models', version['model'], 'versions', version['digest'])}/signatures"
    kept = []
    for one in told.signatures:
        signer = trusted.get(one.get("public", ""))
        if signer is not None:
            session.api.send("POST", path, {"signer": signer, "envelope": one.get("envelope", "")})
            kept.append(signer)
    return kept


def read_archive(file: Path, folder: Path, progress: "Progress") -> tuple[Read, dict[str, Path]]:
    """The version in `file`, and where its blobs lie below `folder`, by digest.

    A member's bytes are written under its digest alone, and checked against it; no name in the archive becomes a path.

    Raises:
        BadRequest: if the archive is refused: what is no layout, holds what is no part of one, or lies.
    """
    sizes: dict[str, int] = {}
    places: dict[str, Path] = {}
    documents: dict[str, bytes] = {}
    job = progress.add_task("checking", total=file.stat().st_size)
    with file.open("rb") as opened:
        for name, size in _members(opened, file.stat().st_size):
            digest = digest_of_member(name)
            place = folder / (digest.removeprefix("sha256:") if digest is not None else name.removeprefix("./"))
            key = digest or place.name
            if key in sizes:
                raise _refused(f"{name!r} is in it twice")
            if digest is None and size > MOST_DOCUMENT:
                raise _refused(f"{name!r} has {size} bytes")
            seen = _write(opened, place, size)
            if digest is not None and seen != digest:
                raise _refused(f"the bytes of {short(digest)} are those of {short(seen)}")
            sizes[key], places[key] = size, place
            if size <= MOST_DOCUMENT and (digest is None or size <= _document_room(documents)):
                documents[key] = place.read_bytes()
            progress.update(job, completed=opened.tell())
    blobs = {key: size for key, size in sizes.items() if key.startswith("sha256:")}
    return read_layout(blobs, documents), places


def _document_room(documents: dict[str, bytes]) -> int:
    """How much may still be held in memory: four of the largest documents together."""
    return 4 * MOST_DOCUMENT - sum(len(body) for body in documents.values())


def _members(opened: BinaryIO, whole: int) -> Iterator[tuple[str, int]]:
    """Name and size of each file of a tar archive, the reader standing at its first byte; whoever asks for the next has read it."""
    extended: dict[str, str] = {}
    count = 0
    while True:
        head = read_head(opened.read(BLOCK), extended)
        if head.kind == "end":
            return
        count += 1
        if count > 2 * MOST_MEMBERS:
            raise _refused(f"it has more than {2 * MOST_MEMBERS} members")
        if opened.tell() + head.size > whole:
            raise _refused(f"{head.name!r} claims {head.size} bytes, more than there are")
        after = opened.tell() + head.size + (-head.size % BLOCK)
        extended = {}
        if head.kind == "extended":
            extended = read_extended(opened.read(head.size))
        elif head.kind == "file":
            yield head.name, head.size
        elif head.kind == "folder" and head.name.removeprefix("./").rstrip("/") not in {
            "",
            ".",
            "blobs",
            "blobs/sha256",
        }:
            raise _refused(f"it holds the folder {head.name[:200]!r}")
        opened.seek(after)


def _write(opened: BinaryIO, place: Path, size: int) -> str:
    hashed, left = hashlib.sha256(), size
    with place.open("xb") as out:
        while left:
            piece = opened.read(min(left, _PIECE))
            if not piece:
                raise _refused("it is cut off")
            hashed.update(piece)
            out.write(piece)
            left -= len(piece)
    return f"sha256:{hashed.hexdigest()}"


def _refused(why: str) -> BadRequest:
    return BadRequest(f"The archive is refused: {why}.", code="bad_archive", param="FILE")
