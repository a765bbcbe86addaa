"""`penstock models push`."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import msgspec
from blake3 import blake3

from penstock.cli.client import at
from penstock.cli.documents import file_argument, read_document
from penstock.cli.models.line import Line
from penstock.cli.models.places import cache_folder
from penstock.cli.models.progress import progress_of
from penstock.cli.session import Session, with_session
from penstock.core.errors import BadRequest, Conflict
from penstock.core.references import Reference, parse_reference
from penstock.registry.blocks import Block, Recipe, batch_head, batches, cuts_of, pack_recipe, seal_of
from penstock.registry.files import check_paths, refuse_pickle_name
from penstock.registry.layout import LENGTH_BYTES, header_length, read_header
from penstock.store.buffers import Buffers
from penstock.store.remembered import Remembered, same

if TYPE_CHECKING:
    from rich.progress import Progress

_LEFT_OUT = {"__pycache__", "node_modules"}
_REQUEST = 64 << 20  # bytes of blocks in one request
_AT_ONCE = 3
_PIECE = 512 << 10  # bytes that are read and hashed at a time: they stay in the processor's cache
_STRETCH = 8 << 20  # bytes that are sent by one call


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A file of this machine and the blocks that it has."""

    path: Path
    size: int
    recipe: Recipe


@click.command("push")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("reference", metavar="NAME:LABEL")
@click.option("--meta", type=file_argument, help="YAML or JSON: training data, metrics, hyperparameters, limitations.")
@click.option("--base", metavar="REF", help="Version that it was made from; kept in its metadata.")
@click.option(
    "--relation",
    type=click.Choice(["fine_tuned_from", "quantised_from", "distilled_from", "merged_from"]),
    help="With --base: what it is of it, kept as its lineage.",
)
@click.option(
    "--reread",
    is_flag=True,
    help="Read every file; by default those are not that were read before and have not changed since.",
)
@with_session
def push(
    session: Session,
    directory: Path,
    reference: str,
    meta: str | None,
    base: str | None,
    relation: str | None,
    reread: bool,
) -> None:
    """Register the files in DIRECTORY as the version NAME:LABEL.

    Blocks that are stored already are not sent again; a push that broke off goes on where it was. Hidden files are left out; links are
    refused.
    """
    wanted = parse_reference(reference)
    if wanted.label is None:
        raise BadRequest(f"{reference!r} has no label to push to; write NAME:LABEL.", param="NAME:LABEL")
    metadata = told_metadata(session, meta, base, relation)
    remembered = None if reread else Remembered(cache_folder() / "recipes.db")
    version = push_files(session, wanted, files_in(directory), metadata, remembered)
    session.answer(
        version,
        lambda: click.echo(f"{version['model']}:{version['label']} is registered as {version['digest']}."),
    )


def told_metadata(session: Session, meta: str | None, base: str | None, relation: str | None) -> dict[str, Any]:
    """What the version is to say of itself: the document `meta`, and that it is `relation` of the version `base`."""
    metadata = read_document(meta) if meta is not None else {}
    if base is not None:
        found = session.api.get("/resolve", ref=str(parse_reference(base)))
        metadata["base"] = {"version": f"{found['model']}:{found['label']}", "digest": found["digest"]}
        if relation is not None:
            edge = {"relation": relation, "version": f"{found['model']}@{found['digest']}"}
            metadata["lineage"] = [*metadata.get("lineage", ()), edge]
    return metadata


def push_files(
    session: Session,
    wanted: Reference,
    paths: dict[str, Path],
    metadata: dict[str, Any],
    remembered: Remembered | None = None,
) -> dict[str, Any]:
    """The version that `paths` become under the label `wanted`: the files of this machine, by the names that they will have.

    Those that `remembered` vouches for are not read, except where control lacks them.
    """
    with progress_of(session) as progress:
        return _push(session, wanted, _cut_all(paths, progress, remembered), metadata, progress)


def files_in(directory: Path) -> dict[str, Path]:
    """The files of a version in `directory`, by the names that they will have.

    Raises:
        BadRequest: if there is none, one is a link or leads through one, or a name is not taken.
    """
    found: dict[str, Path] = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if any(part.startswith(".") or part in _LEFT_OUT for part in inside.parts):
            continue
        if path.is_symlink():
            raise BadRequest(
                f"{path} is a link to {path.readlink()}; links are not followed.",
                param="DIRECTORY",
                hint="Copy what it leads to in its place: cp -RL.",
            )
        if path.is_file():
            found[inside.as_posix()] = path
        elif not path.is_dir():
            raise BadRequest(f"{path} is neither a file nor a folder.", param="DIRECTORY")
    if not found:
        raise BadRequest(f"{directory} holds no file to push.", param="DIRECTORY")
    check_paths(found)
    for taken in found:
        refuse_pickle_name(taken, tensors=True)  # the server says whether an environment takes them
    return found


def _cut_all(paths: dict[str, Path], progress: "Progress", remembered: Remembered | None) -> dict[str, Cut]:
    """The blocks of each file; those that `remembered` vouches for are not read."""
    stats = {path: path.stat() for path in paths.values()}
    known = remembered.find(stats) if remembered is not None else {}
    job = progress.add_task("reading", total=sum(stat.st_size for path, stat in stats.items() if path not in known))
    files = {}
    buffers = Buffers()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for name, path in paths.items():
            if path in known:
                files[name] = Cut(path=path, size=stats[path].st_size, recipe=known[path])
                continue
            with path.open("rb", buffering=0) as file:
                begun, fd = time.time(), file.fileno()
                stat = os.fstat(fd)
                found = cuts_of(_head(fd, stat.st_size, name), stat.st_size)

                def cut(place: tuple[int, int], fd: int = fd, name: str = name) -> Block:
                    block = _read_block(fd, place[0], place[1], name, buffers)
                    progress.advance(job, block.size)
                    return block

                recipe = tuple(pool.map(cut, zip(_starts(found), found, strict=True)))
                files[name] = Cut(path=path, size=stat.st_size, recipe=recipe)
                if remembered is not None and same(stat, os.fstat(fd)):
                    remembered.note(path, stat, recipe, begun)
    return files


def _head(fd: int, size: int, name: str) -> bytes:
    head = os.pread(fd, LENGTH_BYTES + 1, 0)
    length = header_length(head)
    if length is not None and length <= size:
        head = os.pread(fd, length, 0)
    if name.lower().endswith(".safetensors"):
        read_header(head, size, name)  # the server refuses it at the end; this spares the bytes' way
    return head


def _starts(sizes: tuple[int, ...]) -> Iterator[int]:
    at = 0
    for size in sizes:
        yield at
        at += size


def _read_block(fd: int, start: int, size: int, name: str, buffers: Buffers) -> Block:
    """The block at `start`, read piece by piece, each hashed while it is in the processor's cache."""
    hashed = blake3()
    buffer = buffers.take()
    try:
        at = 0
        while at < size:
            count = os.preadv(fd, [buffer.view[: min(_PIECE, size - at)]], start + at)
            if not count:
                raise Conflict(f"{name} has become shorter while it was read.")
            hashed.update(buffer.view[:count])
            at += count
    finally:
        buffer.drop()
    return Block(hashed.hexdigest(), size)


def _push(
    session: Session, wanted: Reference, files: dict[str, Cut], metadata: dict[str, Any], progress: "Progress"
) -> dict[str, Any]:
    seals = "\n".join(f"{name} {seal_of(pack_recipe(cut.recipe))}" for name, cut in files.items())
    upload = session.api.send(
        "POST",
        at("models", wanted.name, "uploads"),
        {
            "label": wanted.label,
            "files": {
                name: {"size": cut.size, "blocks": [[block.name, block.size] for block in cut.recipe]}
                for name, cut in files.items()
            },
            "metadata": metadata,
            # The same folder pushed again to the same label is the same push.
            "idempotency_key": hashlib.sha256(f"{wanted}\n{metadata!r}\n{seals}".encode()).hexdigest(),
        },
    )
    missing = [Block(name, size) for name, size in upload["missing_blocks"]]
    job = progress.add_task("sending", total=sum(block.size for block in missing))
    _Sender(session, upload["id"], files, progress, job).send(missing)
    version: dict[str, Any] = session.api.send("POST", f"{at('uploads', upload['id'])}/commit")
    return version | {"sent": sum(block.size for block in missing)}


class _Sender:
    """Sends blocks in the files' order, some requests at once."""

    def __init__(self, session: Session, upload: str, files: dict[str, Cut], progress: "Progress", job: Any) -> None:
        self._api = session.api
        self._upload = upload
        self._progress = progress
        self._job = job
        self._local = threading.local()
        self._where: dict[str, tuple[Path, int]] = {}
        for cut in files.values():
            for start, block in zip(_starts(tuple(b.size for b in cut.recipe)), cut.recipe, strict=True):
                self._where.setdefault(block.name, (cut.path, start))

    def send(self, missing: list[Block]) -> None:
        """Send all of `missing`.

        Raises:
            PenstockError: what the API refused with; `Unavailable` if it cannot be reached.
        """
        parts = batches(missing, _REQUEST)
        lines: list[Line] = []

        def one(part: list[Block]) -> None:
            line = getattr(self._local, "line", None)
            if line is None:
                line = self._local.line = Line(self._api)
                lines.append(line)
            line.put(self._upload, batch_head(part), self._parts(part), sum(block.size for block in part))

        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                tasks = [pool.submit(one, part) for part in parts]
                try:
                    for task in tasks:
                        task.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            for line in lines:
                line.close()

    def _parts(self, blocks: list[Block]) -> Iterator[tuple[BinaryIO, int, int]]:
        """Where the bytes of `blocks` lie: file, start and length, neighbours together."""
        with ExitStack() as stack:
            opened: dict[Path, BinaryIO] = {}
            path, start, length = self._where[blocks[0].name][0], self._where[blocks[0].name][1], 0
            for block in [*blocks, None]:
                place = None if block is None else self._where[block.name]
                if block is not None and place == (path, start + length) and length + block.size <= _STRETCH:
                    length += block.size
                    continue
                if path not in opened:
                    opened[path] = stack.enter_context(path.open("rb", buffering=0))
                yield opened[path], start, length
                self._progress.advance(self._job, length)
                if block is not None and place is not None:
                    (path, start), length = place, block.size
