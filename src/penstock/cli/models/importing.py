"""`penstock models import`: a version from a model on the Hugging Face hub, from a folder of that layout, or from a file that `export` wrote."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from penstock.cli.models.archive import import_archive
from penstock.cli.models.hub import Hub, HubFile, Revision, cache_folder, parse_source
from penstock.cli.models.progress import progress_of
from penstock.cli.models.push import push_files
from penstock.cli.session import Session, with_session
from penstock.core.errors import BadRequest, NotFound
from penstock.core.references import Reference, parse_reference
from penstock.registry.card import parse_card
from penstock.registry.hub import HUB_CARD, choose_files, metadata_of, place_of


@click.command("import")
@click.argument("source", metavar="SOURCE")
@click.argument("reference", metavar="NAME:LABEL", required=False)
@click.option("--as", "name", metavar="NAME:LABEL", help="The same as NAME:LABEL [default, of a file: as it says].")
@with_session
def import_version(session: Session, source: str, reference: str | None, name: str | None) -> None:
    """Register what SOURCE holds as the version NAME:LABEL.

    SOURCE is hf:ORG/NAME or hf:ORG/NAME@REVISION, a model on the hub (HF_ENDPOINT, HF_TOKEN); a folder in Hugging Face's layout; or a file that 'penstock models export' wrote,
    which keeps its digest. Of a model, safetensors, configuration and tokenizer are taken: no pickles, no code.
    A fetch that broke off goes on where it was.

    The whole file is read and checked before anything is sent. A signature counts if its signer is trusted here (penstock signers create --public).
    What a file says of evaluations is kept with the version's metadata; gates ask for evaluations of their own.
    """
    if reference and name:
        raise BadRequest("The version is named twice: give NAME:LABEL or --as.", param="--as")
    wanted = reference or name
    if not source.startswith("hf:") and not Path(source).exists():
        raise NotFound(f"There is no {source}.", param="SOURCE", hint="A model on the hub is written hf:ORG/NAME.")
    if not source.startswith("hf:") and Path(source).is_file():
        import_archive(session, Path(source), wanted)
        return
    if wanted is None:
        raise BadRequest("Which version it becomes was not said: give NAME:LABEL.", param="NAME:LABEL")
    named = parse_reference(wanted)
    if named.label is None:
        raise BadRequest(f"{wanted!r} has no label; write NAME:LABEL.", param="NAME:LABEL")
    version = (
        _from_hub(session, source, named) if source.startswith("hf:") else _from_folder(session, Path(source), named)
    )
    told = version["metadata"]["annotations"]["imported"]
    session.answer(
        version | {"source": told},
        lambda: click.echo(
            f"{version['model']}:{version['label']} is registered as {version['digest']}, from {told['from']}."
        ),
    )


def _from_hub(session: Session, source: str, wanted: Reference) -> dict[str, Any]:
    with Hub(os.environ) as hub:
        revision = hub.revision(parse_source(source))
        chosen = {file.path: file for file in revision.files}
        names = choose_files(chosen, str(revision.source))
        place = cache_folder(os.environ) / revision.source.repo.replace("/", "--") / revision.commit
        place.mkdir(parents=True, exist_ok=True)
        digests = _fetch(session, hub, revision, [chosen[name] for name in names], place)
        told = {
            "from": f"hf:{revision.source.repo}@{revision.commit}",
            "revision": revision.source.revision,
            "endpoint": hub.endpoint,
            "files": digests,
        }
        version = _push(session, wanted, {name: place / name for name in names}, metadata_of(revision.card, told))
    shutil.rmtree(place, ignore_errors=True)  # it is in the registry now
    return version


def _fetch(session: Session, hub: Hub, revision: Revision, files: Iterable[HubFile], place: Path) -> dict[str, str]:
    wanted = list(files)
    digests = {}
    with progress_of(session) as progress:
        job = progress.add_task("fetching", total=sum(file.size for file in wanted))
        before = 0
        for file in wanted:
            progress.update(job, description=f"fetching {file.path}")

            def tell(got: int, before: int = before) -> None:
                progress.update(job, completed=before + got)

            digests[file.path] = hub.fetch(revision, file, place / file.path, tell)
            before += file.size
    return digests


def _from_folder(session: Session, folder: Path, wanted: Reference) -> dict[str, Any]:
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    names = choose_files(found, str(folder))
    blobs = folder.resolve().parent.parent / "blobs"  # the hub's own cache: snapshots/COMMIT holds links to these
    for name in names:
        if found[name].is_symlink() and not found[name].resolve().is_relative_to(blobs):
            raise BadRequest(
                f"{found[name]} is a link to {found[name].readlink()}; links are not followed.",
                param="SOURCE",
                hint="Copy what it leads to in its place: cp -RL.",
            )
    digests = {}
    for name in names:
        with found[name].open("rb") as file:
            digests[name] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    told = {"from": folder.resolve().name, "files": digests}
    card = found["README.md"].read_text(errors="replace") if "README.md" in found else ""
    try:
        front = parse_card(card).metadata
    except BadRequest:
        front = {}
    return _push(session, wanted, {name: found[name].resolve() for name in names}, metadata_of(front, told))


def _push(session: Session, wanted: Reference, files: dict[str, Path], metadata: dict[str, Any]) -> dict[str, Any]:
    """The version; a card that is none by our rules is kept beside it, under another name."""
    placed = {place_of(name): path for name, path in files.items()}
    try:
        return push_files(session, wanted, placed, metadata)
    except BadRequest as error:
        if error.param not in {"card", "files.README.md"}:
            raise
        session.say(f"{error.message} It is kept as {HUB_CARD}.")
    placed[HUB_CARD] = placed.pop("README.md")
    return push_files(session, wanted, placed, metadata)
