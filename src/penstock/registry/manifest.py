"""What a version is: a manifest of files by digest. Its own digest, over canonical JSON, is the version's name for ever."""

import json

import msgspec

from penstock.core.digests import is_digest, sha256_digest
from penstock.core.errors import BadRequest, NotFound
from penstock.registry.files import Role, check_paths, role_of

MAX_FILE_BYTES = 1 << 50


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: where it lies, what it holds, how many bytes it has."""

    path: str
    digest: str  # sha256:...
    size: int
    role: Role = "other"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All files of a version, ordered by path. Labels, metadata and cards are not part of it: they may be told later and differently."""

    files: tuple[FileEntry, ...]
    format: int = 1

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digests(self) -> frozenset[str]:
        """The blobs that it needs."""
        return frozenset(file.digest for file in self.files)


def make_manifest(files: list[FileEntry]) -> Manifest:
    """A checked manifest, ordered by path.

    Raises:
        BadRequest: for a name, digest or size that is not fine; `param` is the path within the request.
    """
    check_paths([file.path for file in files])
    for index, file in enumerate(files):
        if not is_digest(file.digest):
            raise BadRequest(
                f"The digest of {file.path} is not sha256: and 64 hexadecimal digits.", param=f"files[{index}].digest"
            )
        if not 0 <= file.size <= MAX_FILE_BYTES:
            raise BadRequest(
                f"The size of {file.path} is not a number of bytes: {file.size}.", param=f"files[{index}].size"
            )
    ordered = sorted(files, key=lambda file: file.path)
    return Manifest(files=tuple(msgspec.structs.replace(f, role=role_of(f.path)) for f in ordered))


def canonical(manifest: Manifest) -> bytes:
    """The bytes that the digest is over: JSON with sorted keys, no spaces, UTF-8 (RFC 8785 for the types used here)."""
    return json.dumps(msgspec.to_builtins(manifest), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_manifest(text: str | bytes) -> Manifest:
    """The manifest kept as `text`.

    Raises:
        BadRequest: if it is none.
    """
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadRequest(f"This is not a manifest: {error}.", param="manifest") from None


def digest_of(manifest: Manifest) -> str:
    """The version's digest."""
    return sha256_digest(canonical(manifest))


def folders(manifest: Manifest) -> tuple[str, ...]:
    """The top folders, by name: `openvino-int8`, `safetensors`."""
    return tuple(sorted({file.path.split("/", 1)[0] for file in manifest.files if "/" in file.path}))


def within(manifest: Manifest, folder: str) -> Manifest:
    """The sub-manifest of one top folder, with paths relative to it: what an engine is given as a directory.

    Raises:
        NotFound: if the version has no such folder; the message names those that it has.
    """
    prefix = folder.rstrip("/") + "/"
    found = tuple(
        msgspec.structs.replace(file, path=file.path.removeprefix(prefix))
        for file in manifest.files
        if file.path.startswith(prefix)
    )
    if not found:
        raise NotFound(
            f"The version has no folder {folder!r}; it has {', '.join(folders(manifest)) or 'none'}.", param="folder"
        )
    return Manifest(files=found)


def changed(old: Manifest, new: Manifest) -> dict[str, list[str]]:
    """Paths by what happened to them: `added`, `removed`, `changed`."""
    before = {file.path: file.digest for file in old.files}
    after = {file.path: file.digest for file in new.files}
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(path for path in before.keys() & after.keys() if before[path] != after[path]),
    }


def build_folders(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Folders that an engine can load: precision -> (engine, folder). `openvino-int8` is OpenVINO's int8."""
    known: dict[str, tuple[str, str]] = {}
    for folder in folders(manifest):
        engine, dash, precision = folder.partition("-")
        names = {file.path for file in within(manifest, folder).files}
        if engine == "openvino" and dash and "openvino_model.xml" in names:
            known[precision] = (engine, folder)
    return known
