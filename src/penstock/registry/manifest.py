"""The manifest of a version: every file with its digest, size and role.

The digest of its canonical JSON names the version: change a byte of any file, and the version has another digest.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from penstock.core.digests import is_digest
from penstock.core.errors import BadRequest, Damaged
from penstock.registry.files import Role, check_paths, role_of

_MAX_BYTES = 1 << 50


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    digest: str
    size: int
    role: Role = "other"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All files of a version, by path."""

    files: dict[str, FileEntry]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


def make_manifest(files: Mapping[str, tuple[str, int]]) -> Manifest:
    """The manifest of `files`: path -> (digest, size in bytes); roles follow from the names.

    Raises:
        BadRequest: if a path, digest or size is not allowed, or there is no file.
    """
    if not files:
        raise BadRequest("A version needs at least one file.", param="files")
    check_paths(files)
    for path, (digest, size) in files.items():
        if not is_digest(digest):
            raise BadRequest(
                f"{path!r}: {digest!r} is not a digest (sha256: and 64 digits).", param=f"files.{path}.digest"
            )
        if not 0 <= size <= _MAX_BYTES:
            raise BadRequest(f"{path!r}: {size} is no size of a file.", param=f"files.{path}.size")
    return Manifest(
        files={
            path: FileEntry(digest=files[path][0], size=files[path][1], role=role_of(path)) for path in sorted(files)
        }
    )


def canonical(manifest: Manifest) -> bytes:
    """The manifest as JSON in the one form that its digest is taken of: sorted keys, no spaces, UTF-8."""
    return msgspec.json.encode(manifest, order="sorted")


def manifest_digest(manifest: Manifest) -> str:
    """The digest of the manifest: what names the version."""
    return "sha256:" + hashlib.sha256(canonical(manifest)).hexdigest()


def read_manifest(text: str | bytes, digest: str) -> Manifest:
    """The manifest written as `text`, whose digest must be `digest`.

    Raises:
        Damaged: if it is not.
    """
    raw = text.encode() if isinstance(text, str) else text
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError:
        manifest = None
    if manifest is None or "sha256:" + hashlib.sha256(raw).hexdigest() != digest:
        raise Damaged(f"The manifest of {digest} is not what was committed.")
    return manifest


def subfolder(manifest: Manifest, folder: str) -> Manifest | None:
    """The manifest of one folder, its paths relative to it; of "" that of the files at the top. None if there is no file in it."""
    if not folder:
        top = {path: entry for path, entry in manifest.files.items() if "/" not in path}
        return Manifest(files=top) if top else None
    prefix = folder.rstrip("/") + "/"
    files = {path.removeprefix(prefix): entry for path, entry in manifest.files.items() if path.startswith(prefix)}
    return Manifest(files=files) if files else None
