"""Builds: folders that an engine loads as they are. A version brings some with it, others are made of its weights; what of the version's top belongs to each."""

import msgspec

from penstock.registry.manifest import Manifest, manifest_digest, subfolder
from penstock.registry.processing import CODE
from penstock.registry.processing import FILE as PROCESSING

# Folder of a version -> (engine, precision).
FOLDERS: dict[str, tuple[str, str]] = {
    "openvino-int8": ("openvino", "int8"),
    "openvino-int4": ("openvino", "int4"),
    "openvino-fp16": ("openvino", "fp16"),
    "openvino-fp32": ("openvino", "fp32"),
}
# Files at a version's top that are part of every build which has none of that name itself.
SHARED = (PROCESSING, CODE)


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """One build: its folder in the version, and the manifest of that folder, whose digest names it."""

    engine: str
    precision: str
    folder: str
    digest: str
    manifest: Manifest


def build_manifest(manifest: Manifest, folder: str) -> Manifest | None:
    """The files of the build in `folder`, by their paths in it: what stands there, and what of the version's top belongs to every build.

    None if nothing stands there.
    """
    part = subfolder(manifest, folder)
    if part is None:
        return None
    shared = {name: manifest.files[name] for name in SHARED if name in manifest.files and name not in part.files}
    return Manifest(files={**part.files, **shared}) if shared else part


def builds_of(manifest: Manifest) -> tuple[Build, ...]:
    """The builds in a version, ordered by folder. A folder counts if it holds weights."""
    found = []
    for folder, (engine, precision) in sorted(FOLDERS.items()):
        part = build_manifest(manifest, folder)
        if part is not None and any(entry.role == "weights" for entry in part.files.values()):
            found.append(
                Build(engine=engine, precision=precision, folder=folder, digest=manifest_digest(part), manifest=part)
            )
    return tuple(found)


def code_of(manifest: Manifest) -> str | None:
    """The path of code that an engine would run of some build of this version; None: it brings none."""
    for folder in (*FOLDERS, ""):
        path = f"{folder}/{CODE}" if folder else CODE
        if path in manifest.files:
            return path
    return None
