"""Scans of versions: the heads of their files are read and looked at."""

from typing import Any

from penstock.control.context import Control
from penstock.control.versions.contents import scan_pickle
from penstock.registry.card import parse_card
from penstock.registry.files import is_tensor_pickle
from penstock.registry.layout import LENGTH_BYTES, MAX_HEADER
from penstock.registry.manifest import FileEntry, read_manifest
from penstock.registry.scan import HEAD_BYTES, Finding, scan_version


async def scan(control: Control, version: Any) -> list[Finding]:
    """What is wrong with the files of a version, given by its row, and what else people should know of them.

    Raises:
        Unavailable: if they cannot be read.
    """
    manifest = read_manifest(version.manifest, version.digest)
    heads = {path: await _head(control, path, entry) for path, entry in manifest.files.items()}
    card = parse_card(version.card) if version.card else None
    pickles = {
        path: await scan_pickle(control, entry) for path, entry in manifest.files.items() if is_tensor_pickle(path)
    }
    return scan_version(manifest, heads, card, version.metadata, pickles)


async def _head(control: Control, path: str, entry: FileEntry) -> bytes:
    head = b""
    wanted = HEAD_BYTES
    async for piece in control.blobs.stream(entry.digest):
        head += piece
        if path.lower().endswith(".safetensors") and len(head) >= LENGTH_BYTES:
            wanted = LENGTH_BYTES + min(int.from_bytes(head[:LENGTH_BYTES], "little"), MAX_HEADER)
        if len(head) >= wanted:
            break
    return head[:wanted]
