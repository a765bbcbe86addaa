"""`penstock models list|show|push|pull|card`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument, read_document
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, size, table, when
from penstock.core.errors import BadRequest, Conflict, Damaged
from penstock.core.references import Reference, parse_reference

if TYPE_CHECKING:
    from rich.progress import Progress

_PIECE = 1 << 20
_LEFT_OUT = {"__pycache__", "node_modules"}


@click.group()
def models() -> None:
    """The registry: models, their versions and files."""


@models.command("list")
@click.argument("name", required=False)
@with_session
def list_models(session: Session, name: str | None) -> None:
    """All models, or the versions of the model NAME."""
    if name is not None:
        _list_versions(session, name)
        return
    found = session.api.get("/models")
    running = _deployed(session) if found else {}
    session.answer(
        {"models": found},
        lambda: table(
            session.console,
            ("NAME", "VERSIONS", "LATEST", "DEPLOYED"),
            [(m["name"], m["versions"], m["latest"], running.get(m["name"], [])) for m in found],
            empty="There is no model yet; 'penstock models push DIR NAME:LABEL' registers one.",
        ),
    )


def _deployed(session: Session) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in session.api.get("/deployments"):
        found.setdefault(one["model"], []).append(f"{one['environment']}: {one['label']}")
    return found


def _list_versions(session: Session, name: str) -> None:
    found = session.api.get(at("models", name, "versions"))
    session.answer(
        {"versions": found},
        lambda: table(
            session.console,
            ("VERSION", "STATE", "SIZE", "DIGEST", "CREATED", "BY"),
            [
                (
                    f"{v['model']}:{v['label']}",
                    v["state"],
                    size(v["size"]),
                    v["digest"],
                    when(v["created_at"]),
                    v["created_by"],
                )
                for v in found
            ],
            empty=f"{name} has no version.",
        ),
    )


@models.command("show")
@click.argument("reference", metavar="REF")
@with_session
def show(session: Session, reference: str) -> None:
    """One version: NAME:LABEL, NAME@ALIAS or NAME@sha256:..."""
    parse_reference(reference)
    found = session.api.get("/resolve", ref=reference)

    def people() -> None:
        console = session.console
        pairs(
            console,
            [
                ("version", f"{found['model']}:{found['label']}"),
                ("state", found["state"]),
                ("size", size(found["size"])),
                ("created", f"{when(found['created_at'])} by {found['created_by']}"),
                ("metadata", found["metadata"]),
                ("card misses", found["card_missing"]),
            ],
        )
        console.print(f"[bold]digest[/]   {found['digest']}")
        console.print()
        table(
            console,
            ("BUILD", "ENGINE", "FOLDER", "SIZE", "DIGEST"),
            [(b["precision"], b["engine"], b["folder"] or ".", size(b["size"]), b["digest"]) for b in found["builds"]],
            empty="No folder of it can be loaded by an engine.",
        )
        console.print()
        table(
            console,
            ("FILE", "ROLE", "SIZE", "DIGEST"),
            [(f["path"], f["role"], size(f["size"]), f["digest"]) for f in found["files"]],
            empty="It has no file.",
        )

    session.answer(found, people)


@models.command("card")
@click.argument("reference", metavar="REF")
@with_session
def card(session: Session, reference: str) -> None:
    """The model card of a version, as Markdown."""
    parse_reference(reference)
    found = session.api.get("/resolve", ref=reference)
    document = {"model": found["model"], "label": found["label"], "digest": found["digest"], "card": found["card"]}
    session.answer(document, lambda: click.echo(found["card"] or f"{reference} has no card (README.md)."))


# -- push --------------------------------------------------------------------------------------------------------------


@models.command("push")
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
    with _progress(session) as progress:
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


def _progress(session: Session) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=session.as_json,
    )


# -- pull --------------------------------------------------------------------------------------------------------------


@models.command("pull")
@click.argument("reference", metavar="REF")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@with_session
def pull(session: Session, reference: str, directory: Path) -> None:
    """Write the files of a version below DIRECTORY. Each is checked against its digest; what is there already stays."""
    parse_reference(reference)
    found = session.api.get("/resolve", ref=reference)
    name, digest = found["model"], found["digest"]
    fetch(session, found, directory)
    document = {"model": name, "label": found["label"], "digest": digest, "directory": str(directory)}
    session.answer(
        document, lambda: click.echo(f"{name}:{found['label']} is in {directory}: {len(found['files'])} files.")
    )


def fetch(session: Session, found: dict[str, Any], directory: Path) -> None:
    """Writes the files of a version, `found` by the API's /resolve, below `directory`; what is there already stays."""
    name, digest = found["model"], found["digest"]
    with _progress(session) as progress:
        job = progress.add_task("fetching", total=found["size"])
        for entry in found["files"]:
            target = directory / entry["path"]
            if not target.exists() or _digest_of(target) != entry["digest"]:
                _fetch(session, name, digest, entry, target)
            progress.advance(job, entry["size"])


def _digest_of(path: Path) -> str:
    if not path.is_file():
        raise Conflict(f"{path} is in the way: it is no file.", param="DIRECTORY")
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _fetch(session: Session, name: str, version: str, entry: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    digest = hashlib.sha256()
    with draft.open("wb") as file:
        for piece in session.api.pieces(
            f"{at('models', name, 'versions', version)}/files{at(*entry['path'].split('/'))}"
        ):
            digest.update(piece)
            file.write(piece)
    if f"sha256:{digest.hexdigest()}" != entry["digest"]:
        draft.unlink()
        raise Damaged(
            f"{entry['path']} of {name} arrived with other bytes than its digest names; nothing was kept of it."
        )
    draft.replace(target)
