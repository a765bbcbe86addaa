"""What in a version's files could run: code of its own, and pickles. Looked at where a version is taken in, and where it is to run."""

import asyncio
import bisect
import io
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Control
from penstock.control.specs.resources import EnvironmentSpec
from penstock.control.versions.signatures import signers_of
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.engine.processing import read_processor
from penstock.registry.blocks import Block
from penstock.registry.builds import builds_of, code_of
from penstock.registry.files import is_tensor_pickle, refuse_pickle, refuse_pickle_bytes
from penstock.registry.manifest import FileEntry, Manifest, read_manifest
from penstock.registry.pickles import MOST_READ, Pickles, head_runs_code, runs_code, scan_torch
from penstock.registry.processing import CODE, FILE, MAX_BYTES, check_code
from penstock.store.blobs import Blobs
from penstock.store.schema import resources, versions


class StoredReader(io.RawIOBase):
    """A stored file as a reader for another thread than that of `loop`; it holds a block at a time, however large the file is.

    Raises, of `read`, `ValueError` where more is asked for at once than any honest file needs.
    """

    def __init__(self, blobs: Blobs, recipe: tuple[Block, ...], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._blobs = blobs
        self._recipe = recipe
        self._ends = list(accumulate(block.size for block in recipe))
        self._loop = loop
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves there."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    @property
    def _size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer at the end; all that is left without `size`.

        Raises:
            ValueError: if that is more than `MOST_READ` bytes.
        """
        left = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        if left > MOST_READ:
            raise ValueError(f"{left} bytes are asked for at once")
        parts: list[bytes] = []
        while left > 0:
            number = bisect.bisect_right(self._ends, self._at)
            data = self._block(number)
            inside = self._at - (self._ends[number] - len(data))
            piece = data[inside : inside + left]
            parts.append(piece)
            self._at += len(piece)
            left -= len(piece)
        return b"".join(parts)

    def readline(self, size: int | None = -1) -> bytes:
        """The next bytes up to a line's end, at most as many as a pickle's line may have."""
        most = MOST_READ if size is None or size < 0 else size
        line = bytearray()
        while len(line) < most:
            piece = self.read(min(256, most - len(line)))
            cut = piece.find(b"\n") + 1
            if cut:
                self._at -= len(piece) - cut
                return bytes(line + piece[:cut])
            if not piece:
                break
            line += piece
        return bytes(line)

    def _block(self, number: int) -> bytes:
        if self._held[0] != number:
            reading = asyncio.run_coroutine_threadsafe(self._read_block(self._recipe[number]), self._loop)
            self._held = (number, reading.result())
        return self._held[1]

    async def _read_block(self, block: Block) -> bytes:
        return b"".join([data async for _, data in self._blobs.read([block])])


async def check_contents(control: Control, manifest: Manifest, heads: Mapping[str, bytes]) -> None:
    """See that nothing in the files of a version that is to be committed could run but what is allowed to.

    Args:
        control: the stores.
        manifest: its files.
        heads: some first bytes of each.

    Raises:
        BadRequest: if its processing could not be run, its code is not called, or a file is a pickle that is not allowed; naming what was found.
    """
    await _check_processing(control, manifest)
    async with control.database.read() as connection:
        allowed = await pickles_allowed(connection)
    for path, entry in manifest.files.items():
        if is_tensor_pickle(path):
            if not allowed:
                raise refuse_pickle(path)
            found = await scan_pickle(control, entry)
            if found.wrong:
                raise refuse_pickle(path, "; ".join(found.wrong))
        elif not path.lower().endswith(".safetensors"):
            await _refuse_pickle(control, path, entry, heads[path])


async def _refuse_pickle(control: Control, path: str, entry: FileEntry, head: bytes) -> None:
    """Refuse a file that is a pickle, whatever its name: one may hide behind more harmless steps than `head` has."""
    refuse_pickle_bytes(path, head)
    if head_runs_code(head) is None and entry.size > len(head) and await _reads(control, entry, runs_code):
        raise refuse_pickle(path)


async def scan_pickle(control: Control, entry: FileEntry) -> Pickles:
    """What loading a stored file as PyTorch does would do."""
    found: Pickles = await _reads(control, entry, lambda file: scan_torch(file, entry.size))
    return found


async def _reads(control: Control, entry: FileEntry, look: Any) -> Any:
    file = await control.blobs.file(entry.digest)
    if file is not None:
        reader: Any = StoredReader(control.blobs, tuple(file.recipe), asyncio.get_running_loop())
    else:  # a whole file of an older data folder
        reader = io.BytesIO(await control.blobs.get(entry.digest))
    return await asyncio.to_thread(look, reader)


async def _check_processing(control: Control, manifest: Manifest) -> None:
    files: dict[str, bytes] = {}
    for path, entry in manifest.files.items():
        if path.rpartition("/")[2] not in {FILE, CODE}:
            continue
        if entry.size > MAX_BYTES:
            raise BadRequest(f"{path} has more than {MAX_BYTES >> 10} KiB.", param=f"files.{path}")
        files[path] = await control.blobs.get(entry.digest)
        if path.endswith(FILE):
            await asyncio.to_thread(read_processor, files[path])
    digests = {manifest.files[path].digest: data for path, data in files.items()}
    for part in (manifest, *(build.manifest for build in builds_of(manifest))):
        pair = [digests[part.files[name].digest] if name in part.files else None for name in (FILE, CODE)]
        check_code(*pair)


async def pickles_allowed(connection: AsyncConnection) -> bool:
    """Whether some environment takes pickles of tensors."""
    rows = await connection.execute(select(resources.c.spec).where(resources.c.kind == "Environment"))
    return any(spec.get("pickles") == "tensors" for (spec,) in rows)


async def check_may_run(connection: AsyncConnection, version: Any, environment: str) -> None:
    """See that what a version brings may run in `environment`; there is no override.

    Raises:
        NotFound: if there is no such environment.
        Conflict: `code_not_signed` if it brings code and nobody who is trusted has signed it, `pickle_refused` if it holds a pickle and the environment
            takes none.
    """
    manifest = read_manifest(version.manifest, version.digest)
    await check_code_signed(connection, f"{version.model}:{version.label}", version.digest, code_of(manifest))
    held = [path for path in manifest.files if is_tensor_pickle(path)]
    if not held:
        return
    statement = select(resources.c.spec).where(resources.c.kind == "Environment", resources.c.name == environment)
    spec = (await connection.execute(statement)).scalar_one_or_none()
    if spec is None:
        raise NotFound(f"There is no environment {environment!r}.", param="environment")
    if EnvironmentSpec.model_validate(spec).pickles != "tensors":
        raise Conflict(
            f"{version.model}:{version.label} holds {held[0]!r}, a pickle, and {environment} takes none.",
            code="pickle_refused",
            param="environment",
            hint="Push the weights as safetensors, or declare `pickles: tensors` for the environment.",
        )


async def check_code_signed(
    connection: AsyncConnection, name: str, digest: str, code: str | None, precision: str = ""
) -> None:
    """See that a version with `code` of its own, the file that holds it, is signed; with `precision`, a build of it that was made here.

    Raises:
        Conflict: if not.
    """
    if code is not None and not await signers_of(connection, digest):
        raise Conflict(
            f"{name} brings code of its own ({code}), and no signer who is trusted has signed it: it is not run.",
            code="code_not_signed",
            param="label",
            hint=f"penstock models sign {name} --signer NAME" + (f" --precision {precision}" if precision else ""),
        )


async def check_evaluable(connection: AsyncConnection, model: str, label: str) -> None:
    """As `check_code_signed`, of a version by its name."""
    statement = select(versions.c.manifest, versions.c.digest).where(
        versions.c.model == model, versions.c.label == label
    )
    row = (await connection.execute(statement)).one()
    code = code_of(read_manifest(row.manifest, row.digest))
    await check_code_signed(connection, f"{model}:{label}", row.digest, code)
