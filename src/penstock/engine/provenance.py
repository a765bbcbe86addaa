"""Whether a build is what was committed, or what somebody who is trusted has signed: checked block by block before the pipeline sees any of it."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, Damaged
from penstock.core.provenance import Provenance
from penstock.registry.blocks import block_name
from penstock.registry.builds import build_manifest
from penstock.registry.layout import Tensor, header_length, read_constants, read_header, tensors_between
from penstock.registry.manifest import FileEntry, read_manifest
from penstock.registry.signing import read_envelope

_BLOCK = 4 << 20


def verify_build(directory: Path, provenance: Path, trusted: Sequence[str], *, expected: str | None = None) -> str:
    """Read every byte of the build in `directory` and compare it with what was committed or signed; the version's digest.

    Args:
        directory: what the engine is about to load.
        provenance: the file that control wrote beside it; nothing in it is believed that no signature covers, nor the digest that is expected.
        trusted: public keys, 64 hexadecimal digits each; one of them must have signed.
        expected: the version's digest, as who starts the engine knows it. Where it is given and no key is, no signature is needed.

    Raises:
        Damaged: if nobody who is trusted has signed it, it is of another version than is expected, or a file is missing, another one is there, or its bytes are others: the message names the
            file, the block, and the tensor that lies there.
    """
    try:
        told = msgspec.json.decode(provenance.read_bytes(), type=Provenance)
    except (OSError, msgspec.DecodeError) as error:
        raise Damaged(f"{provenance} cannot be read: {error}.", code="bad_signature") from None
    digest = sha256_digest(told.manifest.encode())
    if expected is not None and digest != expected:
        raise Damaged(f"{provenance} is of {digest}, and {expected} is to be loaded.")
    if (trusted or expected is None) and not any(
        _vouches(envelope, key, digest) for envelope in told.envelopes for key in trusted
    ):
        raise Damaged(f"Nobody who is trusted has signed {told.version} ({digest}).", code="bad_signature")
    part = build_manifest(read_manifest(told.manifest, digest), told.folder)
    if part is None:
        raise Damaged(f"{told.version} has no folder {told.folder}.", code="bad_signature")
    there = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
    for name in sorted(there ^ set(part.files)):
        how = "is in the build, but not in what was signed" if name in there else "is missing from the build"
        raise Damaged(f"{told.version}: {name} {how}.")
    for name, entry in part.files.items():
        _check(directory / name, f"{told.version}: {told.folder}/{name}", entry, told.blocks.get(entry.digest, ()))
    return digest


def _vouches(envelope: str, key: str, digest: str) -> bool:
    try:
        return read_envelope(envelope, key).digest == digest
    except Damaged:
        return False


def _check(path: Path, name: str, entry: FileEntry, blocks: Sequence[tuple[str, int]]) -> None:
    whole = hashlib.sha256()
    wrong: tuple[int, int, int] | None = None
    known = list(blocks) if sum(size for _, size in blocks) == entry.size else []
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        for number, length in enumerate(_lengths(size, known)):
            data = file.read(length)
            whole.update(data)
            if wrong is None and number < len(known) and block_name(data) != known[number][0]:
                wrong = (number, at, at + length)
            at += length
    if f"sha256:{whole.hexdigest()}" == entry.digest:
        return
    if size != entry.size:
        raise Damaged(f"{name} is damaged: it has {size} bytes, and {entry.size} were signed.")
    if wrong is None:
        raise Damaged(f"{name} is damaged: its bytes are not those that were signed.")
    number, begin, end = wrong
    tensors = tensors_between(_tensors(path, size), begin, end)
    where = f", in {' or '.join(tensors[:4])}" if tensors else ""
    raise Damaged(f"{name} is damaged: block {number}, bytes {begin} to {end - 1}{where}.")


def _lengths(size: int, blocks: Sequence[tuple[str, int]]) -> Iterator[int]:
    if blocks and sum(length for _, length in blocks) == size:
        yield from (length for _, length in blocks)
        return
    for begin in range(0, size, _BLOCK):
        yield min(_BLOCK, size - begin)


def _tensors(path: Path, size: int) -> tuple[Tensor, ...]:
    """What lies where in a file of weights; nothing where that cannot be read, as it may be what is damaged."""
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                length = header_length(file.read(9))
                file.seek(0)
                return read_header(file.read(length), size, path.name) if length is not None else ()
        described = path.with_suffix(".xml")
        return read_constants(described.read_bytes()) if path.suffix == ".bin" and described.is_file() else ()
    except (BadRequest, OSError):
        return ()
