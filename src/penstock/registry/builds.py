"""Builds that a version brings with it: folders that an engine loads as they are."""

import msgspec

from penstock.registry.manifest import Manifest, manifest_digest, subfolder

# Folder of a version -> (engine, precision).
FOLDERS: dict[str, tuple[str, str]] = {
    "openvino-int8": ("openvino", "int8"),
    "openvino-int4": ("openvino", "int4"),
    "openvino-fp16": ("openvino", "fp16"),
    "openvino-fp32": ("openvino", "fp32"),
}


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """One build: its folder in the version, and the manifest of that folder, whose digest names it."""

    engine: str
    precision: str
    folder: str
    digest: str
    manifest: Manifest


def builds_of(manifest: Manifest) -> tuple[Build, ...]:
    """The builds in a version, ordered by folder. A folder counts if it holds weights."""
    found = []
    for folder, (engine, precision) in sorted(FOLDERS.items()):
        part = subfolder(manifest, folder)
        if part is not None and any(entry.role == "weights" for entry in part.files.values()):
            found.append(
                Build(engine=engine, precision=precision, folder=folder, digest=manifest_digest(part), manifest=part)
            )
    return tuple(found)
