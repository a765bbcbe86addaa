"""Files as one object each under their SHA-256, as data folders from before blocks hold them: read, and taken over block by block."""

import hashlib
from collections.abc import AsyncIterator

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from penstock.core.digests import is_digest, short
from penstock.core.errors import BadRequest, Damaged, NotFound, Unavailable

_PIECE = 1 << 20


class WholeFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file that is there."""

    digest: str
    size: int


class WholeFiles:
    """What a store holds of such files."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    async def size(self, digest: str) -> int | None:
        """The size of a file in bytes; None if it is not there."""
        try:
            return int((await obstore.head_async(self._store, whole_key(digest)))["size"])
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._failed(error) from error

    async def stream(self, digest: str) -> AsyncIterator[bytes]:
        """Its bytes, piece by piece; damage is raised after the last piece, before the end.

        Raises:
            NotFound: if it is not there.
            Damaged: if its bytes are not those of its name.
        """
        hashed = hashlib.sha256()
        try:
            result = await obstore.get_async(self._store, whole_key(digest))
            async for piece in result.stream(min_chunk_size=_PIECE):
                data = bytes(piece)
                hashed.update(data)
                yield data
        except FileNotFoundError:
            raise NotFound(f"There is no file {digest}.") from None
        except (BaseError, OSError) as error:
            raise self._failed(error) from error
        if "sha256:" + hashed.hexdigest() != digest:
            raise Damaged(f"The file {short(digest)} is damaged: its bytes are not those of its name.")

    async def list(self) -> AsyncIterator[WholeFile]:
        """All that are there."""
        try:
            async for batch in obstore.list(self._store, prefix="sha256"):
                for entry in batch:
                    digest = "sha256:" + str(entry["path"]).rpartition("/")[2]
                    if is_digest(digest):
                        yield WholeFile(digest=digest, size=int(entry["size"]))
        except (BaseError, OSError) as error:
            raise self._failed(error) from error

    async def delete(self, digest: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            await obstore.delete_async(self._store, whole_key(digest))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> Unavailable:
        return Unavailable(
            f"The blob store {self._name} failed: {str(error).partition(chr(10))[0]}.",
            code="blobs_unavailable",
            retry_after=1.0,
            hint="Look for a full disk, missing rights or a wrong PENSTOCK_CONTROL_BLOBS.",
        )


def whole_key(digest: str) -> str:
    """Where the whole file `digest` lies within its store.

    Raises:
        BadRequest: if `digest` is not written as one.
    """
    if not is_digest(digest):
        raise BadRequest(f"{digest!r} is not a digest: sha256: and 64 hexadecimal digits.", param="digest")
    digits = digest.removeprefix("sha256:")
    return f"sha256/{digits[:2]}/{digits}"
