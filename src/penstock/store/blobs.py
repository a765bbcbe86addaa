"""Files under the SHA-256 of their bytes, kept as blocks in packs; a folder or an S3 bucket holds the packs, the database the rest.

Nothing that a client writes ever becomes a path: a pack's id is drawn here.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import time

from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from sqlalchemy import select

from penstock.core.digests import is_digest, short
from penstock.core.errors import BadRequest, Damaged, Unavailable
from penstock.registry.blocks import Block, Recipe, block_name
from penstock.registry.delta import decode_delta
from penstock.store.block_index import Place, StoredFile, find_file, find_places, open_packs, touch_blocks
from penstock.store.buffers import Buffers
from penstock.store.intake import Came, Intake
from penstock.store.packs import FolderPacks, ObjectPacks, Packs
from penstock.store.schema_storage import stored_files
from penstock.store.sql import Database
from penstock.store.taking import take_whole
from penstock.store.whole_files import WholeFile, WholeFiles

PIECE = 1 << 20  # bytes in one piece of a stream
_RESERVE = 16  # packs that are opened together
_RESERVE_S = 900.0  # for which they are used; the sweep takes open ones that are older than an hour
_AHEAD = 64  # blocks whose places are looked up together


class Blobs:
    """All files. Every method raises Unavailable if the store or the database cannot be reached or written."""

    def __init__(
        self,
        *,
        database: Database,
        packs: Packs,
        whole: WholeFiles,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.database = database
        self.packs = packs
        self.whole = whole
        self.buffers = Buffers()
        self.clock = clock
        self._entropy = entropy
        self._reserve: list[str] = []
        self._reserved_at = 0.0
        self._reserving = asyncio.Lock()

    # -- files ---------------------------------------------------------------------------------------------------------

    async def size(self, digest: str) -> int | None:
        """The size of a file in bytes; None if it is not there."""
        file = await self.file(digest)
        return file.size if file is not None else await self.whole.size(digest)

    async def file(self, digest: str) -> StoredFile | None:
        """The file's blocks; None if it is not there, or not in blocks."""
        async with self.database.read() as connection:
            return await find_file(connection, digest)

    async def list(self) -> AsyncIterator[WholeFile]:
        """The digest and size of every file."""
        async with self.database.read() as connection:
            rows = (await connection.execute(select(stored_files.c.digest, stored_files.c.size))).all()
        for row in rows:
            yield WholeFile(digest=row.digest, size=row.size)
        known = {row.digest for row in rows}
        async for whole in self.whole.list():
            if whole.digest not in known:
                yield whole

    async def get(self, digest: str) -> bytes:
        """All bytes of a file, checked.

        Raises:
            NotFound: if it is not there.
            Damaged: if its bytes are not what was written.
        """
        return b"".join([piece async for piece in self.stream(digest)])

    async def head(self, digest: str, length: int) -> bytes:
        """The first `length` bytes of a file, or all if it has fewer."""
        found = b""
        async for piece in self.stream(digest):
            found += piece
            if len(found) >= length:
                break
        return found[:length]

    async def stream(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes of a file, block by block, each checked before it is given.

        Raises:
            NotFound: if it is not there.
            Damaged: if its bytes are not what was written; the message says from which byte on.
        """
        file = await self.file(digest)
        if file is None:
            async for piece in self.whole.stream(digest):
                yield piece
            return
        at = 0
        async for block, data in self.read(file.recipe):
            if await asyncio.to_thread(block_name, data) != block.name:
                raise Damaged(
                    f"The file {short(digest)} is damaged at bytes {at} to {at + block.size}: they are not those of their block."
                )
            yield data
            at += block.size

    async def put_new(self, digest: str, source: AsyncIterator[bytes], *, size: int | None = None) -> int:
        """Store `source` under `digest` and give its size; what is there already is left as it is, its source not read.

        Raises:
            BadRequest: if the bytes are not those of `digest`, or not `size` many; nothing is stored then.
        """
        if not is_digest(digest):
            raise BadRequest(f"{digest!r} is not a digest: sha256: and 64 hexadecimal digits.", param="digest")
        present = await self.size(digest)
        if present is not None:
            return present
        return await take_whole(self, digest, source, size)

    async def take_over(self, digest: str, source: AsyncIterator[bytes], size: int) -> int:
        """Store the file `digest`, which is kept whole, as blocks."""
        return await take_whole(self, digest, source, size)

    async def put_bytes(self, data: bytes) -> str:
        """Store `data` and give its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()

        async def once() -> AsyncIterator[bytes]:
            yield data

        await self.put_new(digest, once(), size=len(data))
        return digest

    # -- blocks --------------------------------------------------------------------------------------------------------

    async def intake(self, recipe: Recipe, came: Came | None = None) -> Intake:
        """A pack to be filled with the blocks of `recipe`; `came` is called with each that was seen to be right."""
        identity = await self._reserved()
        taking = Intake(
            database=self.database,
            packs=self.packs,
            buffers=self.buffers,
            identity=identity,
            recipe=recipe,
            clock=self.clock,
            came=came,
        )
        await taking.begin()
        return taking

    async def _reserved(self) -> str:
        """The id of a pack that is open: some are opened together, since each transaction waits for the disk."""
        async with self._reserving:
            now = self.clock()
            if not self._reserve or now - self._reserved_at > _RESERVE_S:
                identities = [self._entropy(16).hex() for _ in range(_RESERVE)]
                async with self.database.write() as connection:
                    await open_packs(connection, identities, now)
                self._reserve, self._reserved_at = identities, now
            return self._reserve.pop()

    async def present(self, names: Iterable[str]) -> set[str]:
        """Those of `names` that are there; the sweep leaves them alone for its grace."""
        async with self.database.write() as connection:
            return await touch_blocks(connection, names, self.clock())

    async def places(self, names: Iterable[str]) -> dict[str, Place]:
        """Where those of `names` lie that are there, and the bases of those that are deltas."""
        async with self.database.read() as connection:
            return await find_places(connection, names)

    async def read(self, blocks: Sequence[Block], *, zeros: bool = False) -> AsyncIterator[tuple[Block, bytes]]:
        """The bytes of `blocks`, in their order, not checked against their names.

        Args:
            blocks: which.
            zeros: give zeros for one that is not there or cannot be put together, which its reader will see not to be it.

        Raises:
            Damaged: if one is not there, or cannot be put together.
        """
        for start in range(0, len(blocks), _AHEAD):
            part = blocks[start : start + _AHEAD]
            places = await self.places(block.name for block in part)
            for block in part:
                try:
                    data = await self._read(block, places)
                except Damaged:
                    if not zeros:
                        raise
                    data = bytes(block.size)
                yield block, data

    async def _read(self, block: Block, places: dict[str, Place]) -> bytes:
        try:
            return await asyncio.to_thread(self.read_block, block.name, places)
        except FileNotFoundError:  # moved to another pack since
            places |= await self.places([block.name])
        try:
            return await asyncio.to_thread(self.read_block, block.name, places)
        except FileNotFoundError:
            raise Damaged(f"The pack of the block {block.name[:12]} is gone.") from None

    def read_block(self, name: str, places: Mapping[str, Place]) -> bytes:
        """The bytes of one block, not checked against its name; call it in a thread.

        Raises:
            FileNotFoundError: if its pack is not there.
            Damaged: if it, or its base, is in none, or it cannot be put together.
        """
        place = places.get(name)
        if place is None:
            raise Damaged(f"The block {name[:12]} is gone.")
        data = self.packs.read(place.pack, place.start, place.length)
        if place.base is None:
            return data
        base = places.get(place.base)
        if base is None or base.base is not None:
            raise Damaged(f"The block {name[:12]} has no base to be put together with.")
        return decode_delta(data, self.packs.read(base.pack, base.start, base.length), place.width)


def open_blobs(where: str, folder: Path, database: Database) -> Blobs:
    """The files that `database` knows of, in the store at `where`.

    Args:
        where: empty for `folder`, else a URL such as `s3://bucket/prefix` (credentials as the AWS tools read them), `memory:///` or a
            path.
        folder: used, and made, if `where` is empty.
        database: holds what the files are made of.

    Raises:
        BadRequest: if `where` is a URL of no known kind.
        Unavailable: if the folder cannot be made.
    """
    if where and "://" in where:
        try:
            store = from_url(where)
        except (BaseError, ValueError) as error:
            raise BadRequest(f"{where!r} is no blob store: {error}.", param="control.blobs") from None
        packs: Packs = ObjectPacks(store, where)
        return Blobs(database=database, packs=packs, whole=WholeFiles(store, where), clock=time, entropy=os.urandom)
    folder = Path(where) if where else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        local = LocalStore(folder)
    except (BaseError, OSError) as error:
        raise Unavailable(f"The folder {folder} cannot hold blobs: {error}.", code="blobs_unavailable") from None
    return Blobs(
        database=database,
        packs=FolderPacks(folder),
        whole=WholeFiles(local, str(folder)),
        clock=time,
        entropy=os.urandom,
    )
