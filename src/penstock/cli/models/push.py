"""`penstock models push`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument, read_document
from penstock.cli.models.progress import progress_of
from penstock.cli.session import Session, with_session
from penstock.core.errors import BadRequest
from penstock.core.references import Reference, parse_reference

if TYPE_CHECKING:
    from rich.progress import Progress

_PIECE = 1 << 20
_LEFT_OUT = {"__pycache__", "node_modules"}


@click.command("push")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("reference", metavar="NAME:LABEL")
@click.option("--meta", type=file_argument, help="YAML or JSON: training data, metrics, hyperparameters, limitations.")
@click.option("--base", metavar="REF", help="Version that it was made from; kept in its metadata.")
@with_session
def push(session: Session, directory: Path, reference: str, meta: str | None, base: str | None) -> None:
    """Register the files in DIRECTORY as the version NAME:LABEL.

    What is stored already is not sent again; a push that broke off goes on where it was. Hidden files are left out.
    """
    wanted = parse_reference(reference)
    if wanted.label is None:
        raise BadRequest(f"{reference!r} has no label to push to; write NAME:LABEL.", param="NAME:LABEL")
    metadata = read_document(meta) if meta is not None else {}
    if base is not None:
        found = session.api.get("/resolve", ref=str(parse_reference(base)))
        metadata["base"] = {"version": f"{found['model']}:{found['label']}", "digest": found["digest"]}
    paths = _files(directory)
    with progress_of(session) as progress:
        files = _digests(paths, progress)
        version = _push(session, wanted, files, paths, metadata, progress)
    session.answer(
        version,
        lambda: click.echo(f"{version['model']}:{version['label']} is registered as {version['digest']}."),
    )


def _push(
    session: Session,
    wanted: Reference,
    files: dict[str, dict[str, Any]],
    paths: dict[str, Path],
    metadata: dict[str, Any],
    progress: "Progress",
) -> dict[str, Any]:
    listing = "\n".join(f"{path} {entry['digest']}" for path, entry in files.items())
    upload = session.api.send(
        "POST",
        at("models", wanted.name, "uploads"),
        {
            "label": wanted.label,
            "files": files,
            "metadata": metadata,
            # The same folder pushed again to the same label is the same push.
            "idempotency_key": hashlib.sha256(f"{wanted}\n{metadata!r}\n{listing}".encode()).hexdigest(),
        },
    )
    by_digest = {entry["digest"]: path for path, entry in files.items()}
    missing = [by_digest[digest] for digest in upload["missing"]]
    job = progress.add_task("sending", total=sum(files[path]["size"] for path in missing))
    for path in missing:
        digest = files[path]["digest"]
        session.api.raw("PUT", f"/blobs/{digest}", _pieces(paths[path], progress, job), "application/octet-stream")
    version: dict[str, Any] = session.api.send("POST", f"{at('uploads', upload['id'])}/commit")
    return version


def _files(directory: Path) -> dict[str, Path]:
    found = {
        path.relative_to(directory).as_posix(): path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") or part in _LEFT_OUT for part in path.relative_to(directory).parts)
    }
    if not found:
        raise BadRequest(f"{directory} holds no file to push.", param="DIRECTORY")
    return found


def _digests(paths: dict[str, Path], progress: "Progress") -> dict[str, dict[str, Any]]:
    job = progress.add_task("reading", total=sum(path.stat().st_size for path in paths.values()))
    files = {}
    for name, path in paths.items():
        digest, count = hashlib.sha256(), 0
        for piece in _pieces(path, progress, job):
            digest.update(piece)
            count += len(piece)
        files[name] = {"digest": f"sha256:{digest.hexdigest()}", "size": count}
    return files


def _pieces(path: Path, progress: "Progress", job: Any) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
            progress.advance(job, len(piece))
