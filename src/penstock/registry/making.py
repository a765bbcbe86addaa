"""Builds that are made of a version's weights: what they are made of, where they stand, how they are named by digest."""

from collections.abc import Iterable, Mapping

from penstock.registry.builds import FOLDERS, SHARED
from penstock.registry.manifest import Manifest, make_manifest

# Precisions from the widest to the narrowest: the first that a version has a build in is what the others are compared with.
WIDEST = ("fp32", "fp16", "int8", "int4")
# Folder of the weights as they were trained; where there is none, they stand at the version's top.
WEIGHTS = "safetensors"


def made_manifest(version: Manifest, folder: str, files: Mapping[str, tuple[str, int]]) -> Manifest:
    """The manifest of a build that was made of `version`: `files` (path within it -> digest, bytes) under `folder`, and the version's shared files at the top.

    `builds.build_manifest` of it is what the engine loads; the digest of its canonical form is what a signature of the build is of.
    """
    made = make_manifest({f"{folder}/{name}": file for name, file in files.items()})
    shared = {name: version.files[name] for name in SHARED if name in version.files}
    return Manifest(files=dict(sorted({**made.files, **shared}.items())))


def folder_of(engine: str, precision: str) -> str:
    """The name of the folder of a build."""
    return next(folder for folder, kind in FOLDERS.items() if kind == (engine, precision))


def weights_folder(manifest: Manifest) -> str | None:
    """The folder of a version that holds its weights as they were trained; "" is its top; None: it has none."""
    if any(path.startswith(f"{WEIGHTS}/") and path.endswith(".safetensors") for path in manifest.files):
        return WEIGHTS
    return "" if any("/" not in path and path.endswith(".safetensors") for path in manifest.files) else None


def widest(precisions: Iterable[str]) -> str | None:
    """The widest of `precisions`; None: there is none."""
    return min((one for one in precisions if one in WIDEST), key=WIDEST.index, default=None)
