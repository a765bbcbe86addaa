"""`penstock models pull`."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.client import at
from penstock.cli.models.line import Line
from penstock.cli.models.places import cache_folder
from penstock.cli.models.progress import progress_of
from penstock.cli.session import Session, with_session
from penstock.core.errors import Damaged
from penstock.core.references import parse_reference
from penstock.registry.blocks import BLOCK, Block, batches
from penstock.registry.files import check_paths
from penstock.registry.manifest import read_manifest
from penstock.store.draft import Draft
from penstock.store.nearby import Nearby

if TYPE_CHECKING:
    from rich.progress import Progress

_REQUEST = 256 << 20  # bytes that are asked for together, at most
_AT_ONCE = 2


@click.command("pull")
@click.argument("reference", metavar="REF")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--sha256", is_flag=True, help="Check each file against its SHA-256, too; by default its blocks are checked."
)
@with_session
def pull(session: Session, reference: str, directory: Path, sha256: bool) -> None:
    """Write the files of a version below DIRECTORY.

    Only blocks that no file fetched before on this host has are asked for. Every block is checked before it is written, and a file stands
    under its name once it is whole; what is there already and right stays.
    """
    wanted = parse_reference(reference)
    found = session.api.get("/resolve", ref=reference)
    if wanted.digest not in {None, found["digest"]}:
        raise Damaged(f"{reference} was asked for, and {found['digest']} is what came.")
    fetched = fetch(session, found, directory, sha256=sha256)
    document = {key: found[key] for key in ("model", "label", "digest")} | {
        "directory": str(directory),
        "fetched": fetched,
    }
    files, name = len(found["files"]), f"{found['model']}:{found['label']}"
    session.answer(document, lambda: click.echo(f"{name} is in {directory}: {files} files."))


def fetch(session: Session, found: dict[str, Any], directory: Path, *, sha256: bool = False) -> int:
    """Writes the files of a version, `found` by the API's /resolve, below `directory`; how many bytes were asked for.

    Raises:
        Damaged: if bytes that came are not those that were stored; the message names the file. What has come is kept as a draft.
        PenstockError: what the API refused with.
    """
    name, version = found["model"], found["digest"]
    listing = session.api.get(f"{at('models', name, 'versions', version)}/blocks")["files"]
    check_paths(listing)
    manifest = read_manifest(session.api.text(f"{at('models', name, 'versions', version)}/manifest"), version)
    if {p: (e.digest, e.size) for p, e in manifest.files.items()} != {
        p: (e["digest"], e["size"]) for p, e in listing.items()
    }:
        raise Damaged(f"The files that are told of {name} are not those of its manifest {version}.")
    nearby = Nearby(cache_folder() / "blocks.db")
    with progress_of(session) as progress, ExitStack() as stack:
        job = progress.add_task("fetching", total=sum(entry["size"] for entry in listing.values()))
        drafts: list[Draft] = []
        missing: list[tuple[Draft, Block]] = []
        # What tells where tensors lie comes before the bytes of these, so that damage is told with the tensor.
        for path, entry in sorted(listing.items(), key=lambda one: (one[0].endswith(".bin"), one[0])):
            if entry["blocks"] is None:
                _fetch_whole(session, name, version, path, entry, directory / path)
                progress.advance(job, entry["size"])
                continue
            draft = Draft(directory / path, path, tuple(Block(*block) for block in entry["blocks"]))
            if draft.is_there():
                progress.advance(job, draft.size)
                nearby.add(draft.target, draft.recipe)
                continue
            stack.callback(draft.close)
            lacks = draft.begin()
            progress.advance(job, draft.size - sum(block.size for block in lacks))
            missing += [(draft, block) for block in _take_nearby(nearby, draft, lacks, progress, job)]
            drafts.append(draft)
        _Fetcher(session, found, progress, job).fetch(missing)
        for draft in drafts:
            draft.finish()
            nearby.add(draft.target, draft.recipe)
    if sha256:
        for path, entry in listing.items():
            _check_whole(directory / path, {"path": path, "digest": entry["digest"]})
    return sum(block.size for _, block in missing)


def _take_nearby(nearby: Nearby, draft: Draft, lacks: list[Block], progress: "Progress", job: Any) -> list[Block]:
    known = nearby.known(lacks)
    left = []
    for block in lacks:
        data = nearby.find(block) if block.name in known else None
        if data is None:
            left.append(block)
        else:
            draft.place(block, data)
            progress.advance(job, block.size)
    return left


class _Fetcher:
    """Asks for blocks, some requests at once."""

    def __init__(self, session: Session, found: dict[str, Any], progress: "Progress", job: Any) -> None:
        self._api = session.api
        self._found = found
        self._progress = progress
        self._job = job
        self._local = threading.local()
        self._lines: list[Line] = []

    def fetch(self, missing: list[tuple[Draft, Block]]) -> None:
        """Fetch all of `missing`, each into its draft."""
        wanting: dict[str, list[Draft]] = {}
        for draft, block in missing:
            wanting.setdefault(block.name, []).append(draft)
        wanted = {block.name: block for _, block in missing}.values()
        share = sum(block.size for block in wanted) // (2 * _AT_ONCE) + 1
        parts = batches(wanted, max(BLOCK, min(_REQUEST, share)))
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                tasks = [pool.submit(self._one, part, wanting) for part in parts]
                try:
                    for task in tasks:
                        task.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            for line in self._lines:
                line.close()

    def _one(self, part: list[Block], wanting: dict[str, list[Draft]]) -> None:
        line = getattr(self._local, "line", None)
        if line is None:
            line = self._local.line = Line(self._api)
            self._lines.append(line)
        names, sizes = [block.name for block in part], [block.size for block in part]
        pieces = line.read(self._found["model"], self._found["digest"], names, sizes)
        for block, data in zip(part, pieces, strict=True):
            for draft in wanting[block.name]:
                draft.place(block, data)
            self._progress.advance(self._job, block.size)


def _fetch_whole(session: Session, name: str, version: str, path: str, entry: dict[str, Any], target: Path) -> None:
    """A file that control keeps whole still."""
    if target.is_file() and _digest_of(target) == entry["digest"]:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    with draft.open("wb") as file:
        for piece in session.api.pieces(f"{at('models', name, 'versions', version)}/files{at(*path.split('/'))}"):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    _check_whole(draft, {"path": path, "digest": entry["digest"]})
    draft.replace(target)


def _check_whole(file: Path, entry: dict[str, Any]) -> None:
    if _digest_of(file) != entry["digest"]:
        file.unlink()
        raise Damaged(f"{entry['path']} arrived with other bytes than its digest names; nothing was kept of it.")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
