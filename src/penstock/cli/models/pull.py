"""`penstock models pull`."""

import hashlib
from pathlib import Path
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.models.progress import progress_of
from penstock.cli.session import Session, with_session
from penstock.core.errors import Conflict, Damaged
from penstock.core.references import parse_reference


@click.command("pull")
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
    with progress_of(session) as progress:
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
