"""Blobs: bytes under the name of their own SHA-256, written once and never changed. A folder or an S3 bucket holds them.

A key is made of a digest alone (`sha256/ab/abcdef...`), so nothing that a client writes ever becomes a path.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from penstock.core.digests import is_digest, short
from penstock.core.errors import BadRequest, Damaged, NotFound, Unavailable

PIECE = 1 << 20  # bytes in one piece of a stream
_WHOLE = 8 << 20  # up to this a blob is written in one request
_INCOMING = "incoming/"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One blob that is there."""

    digest: str
    size: int
    modified: float  # Unix seconds


class Blobs(Protocol):
    """The port of blob stores. Every method raises Unavailable if the store cannot be reached or written."""

    async def put_new(self, digest: str, source: AsyncIterator[bytes], *, size: int | None = None) -> int:
        """Store `source` under `digest` and give its size; what is there already is left as it is, its source not read.

        Raises:
            BadRequest: if the bytes are not those of `digest`, or not `size` many; nothing is stored then.
        """
        ...

    async def put_bytes(self, data: bytes) -> str:
        """Store `data` and give its digest."""
        ...

    async def get(self, digest: str) -> bytes:
        """All bytes of a blob, checked.

        Raises:
            NotFound: if it is not there.
            Damaged: if its bytes are not what was written.
        """
        ...

    def stream(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes of a blob, piece by piece, checked: damage is raised after the last piece, before the end.

        Raises:
            NotFound: if it is not there.
            Damaged: if its bytes are not what was written.
        """
        ...

    async def size(self, digest: str) -> int | None:
        """The size of a blob in bytes; None if it is not there."""
        ...

    def list(self) -> AsyncIterator[Stored]:
        """All blobs."""
        ...

    async def delete(self, digest: str) -> None:
        """Remove a blob; one that is not there is no error."""
        ...


class ObjectBlobs:
    """Blobs in any store that obstore speaks to: a local folder, memory, S3."""

    def __init__(self, store: ObjectStore, *, name: str) -> None:
        self._store = store
        self._name = name

    async def put_new(self, digest: str, source: AsyncIterator[bytes], *, size: int | None = None) -> int:
        """See `Blobs.put_new`."""
        key = blob_key(digest)
        present = await self.size(digest)
        if present is not None:
            return present
        try:
            return await self._take(key, digest, source, size)
        except (BaseError, OSError) as error:
            raise self._failed(error) from error

    async def put_bytes(self, data: bytes) -> str:
        """See `Blobs.put_bytes`."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()

        async def once() -> AsyncIterator[bytes]:
            yield data

        await self.put_new(digest, once(), size=len(data))
        return digest

    async def get(self, digest: str) -> bytes:
        """See `Blobs.get`."""
        return b"".join([piece async for piece in self.stream(digest)])

    async def stream(self, digest: str) -> AsyncIterator[bytes]:
        """See `Blobs.stream`."""
        hashed = hashlib.sha256()
        try:
            result = await obstore.get_async(self._store, blob_key(digest))
            async for piece in result.stream(min_chunk_size=PIECE):
                data = bytes(piece)
                hashed.update(data)
                yield data
        except FileNotFoundError:
            raise NotFound(f"There is no blob {digest}.") from None
        except (BaseError, OSError) as error:
            raise self._failed(error) from error
        if "sha256:" + hashed.hexdigest() != digest:
            raise Damaged(f"The blob {short(digest)} is damaged: its bytes are not those of its name.")

    async def size(self, digest: str) -> int | None:
        """See `Blobs.size`."""
        try:
            return int((await obstore.head_async(self._store, blob_key(digest)))["size"])
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._failed(error) from error

    async def list(self) -> AsyncIterator[Stored]:
        """See `Blobs.list`."""
        try:
            async for batch in obstore.list(self._store, prefix="sha256"):
                for entry in batch:
                    digest = "sha256:" + str(entry["path"]).rpartition("/")[2]
                    if is_digest(digest):
                        yield Stored(
                            digest=digest, size=int(entry["size"]), modified=entry["last_modified"].timestamp()
                        )
        except (BaseError, OSError) as error:
            raise self._failed(error) from error

    async def delete(self, digest: str) -> None:
        """See `Blobs.delete`."""
        try:
            await obstore.delete_async(self._store, blob_key(digest))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise self._failed(error) from error

    async def _take(self, key: str, digest: str, source: AsyncIterator[bytes], size: int | None) -> int:
        hashed = hashlib.sha256()
        head: list[bytes] = []
        total = 0
        async for piece in source:
            hashed.update(piece)
            head.append(piece)
            total += len(piece)
            if total > (_WHOLE if size is None else min(size, _WHOLE)):
                break
        else:
            _check(digest, hashed.hexdigest(), total, size)
            with suppress(AlreadyExistsError):  # somebody stored the same bytes meanwhile
                await obstore.put_async(self._store, key, b"".join(head), mode="create", use_multipart=False)
            return total
        if size is not None and total > size:
            _check(digest, "", total, size)
        incoming = f"{_INCOMING}{secrets.token_hex(16)}"
        try:
            async with obstore.open_writer_async(self._store, incoming) as writer:
                for piece in head:
                    await writer.write(piece)
                head.clear()
                async for piece in source:
                    hashed.update(piece)
                    total += len(piece)
                    if size is not None and total > size:
                        break
                    await writer.write(piece)
            _check(digest, hashed.hexdigest(), total, size)
            await obstore.rename_async(self._store, incoming, key, overwrite=True)
        except BaseException:
            with suppress(
                FileNotFoundError, BaseError
            ):  # never written, or the store is gone: `gc` sweeps what is left
                await obstore.delete_async(self._store, incoming)
            raise
        return total

    def _failed(self, error: BaseException) -> Unavailable:
        return Unavailable(
            f"The blob store {self._name} failed: {str(error).partition(chr(10))[0]}.",
            code="blobs_unavailable",
            retry_after=1.0,
            hint="Look for a full disk, missing rights or a wrong PENSTOCK_CONTROL_BLOBS.",
        )


def open_blobs(where: str, folder: Path) -> ObjectBlobs:
    """The blob store at `where`.

    Args:
        where: empty for `folder`, else a URL such as `s3://bucket/prefix` (credentials as the AWS tools read them), `memory:///` or a
            path.
        folder: used, and made, if `where` is empty.

    Raises:
        BadRequest: if `where` is a URL of no known kind.
        Unavailable: if the folder cannot be made.
    """
    if where and "://" in where:
        try:
            return ObjectBlobs(from_url(where), name=where)
        except (BaseError, ValueError) as error:
            raise BadRequest(f"{where!r} is no blob store: {error}.", param="control.blobs") from None
    folder = Path(where) if where else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return ObjectBlobs(LocalStore(folder), name=str(folder))
    except (BaseError, OSError) as error:
        raise Unavailable(f"The folder {folder} cannot hold blobs: {error}.", code="blobs_unavailable") from None


def blob_key(digest: str) -> str:
    """Where the blob `digest` lies within its store.

    Raises:
        BadRequest: if `digest` is not written as one.
    """
    if not is_digest(digest):
        raise BadRequest(f"{digest!r} is not a digest: sha256: and 64 hexadecimal digits.", param="digest")
    digits = digest.removeprefix("sha256:")
    return f"sha256/{digits[:2]}/{digits}"


def _check(digest: str, seen: str, total: int, size: int | None) -> None:
    if size is not None and total != size:
        more = "more" if total > size else f"{total}"
        raise BadRequest(f"The blob {short(digest)} has {more} bytes where {size} were announced.", param="body")
    if "sha256:" + seen != digest:
        raise BadRequest(
            f"The bytes sent for {short(digest)} are those of {seen[:12]}.", param="digest", code="digest_mismatch"
        )
