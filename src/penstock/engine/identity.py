"""What names the embedded engine: evaluations are bound to it."""

import json
from functools import cache
from importlib import metadata
from pathlib import Path

from penstock import __version__
from penstock.core.digests import sha256_digest

_PARTS = ("openvino", "openvino-genai", "openvino-tokenizers")


@cache
def engine_digest() -> str:
    """The digest of the engine that is installed here: its libraries' versions, and our own code around them. "" if it is not installed."""
    try:
        versions = {name: metadata.version(name) for name in _PARTS}
    except metadata.PackageNotFoundError:
        return ""
    folder = Path(__file__).parent
    code = {path.name: sha256_digest(path.read_bytes()) for path in sorted(folder.glob("*.py"))}
    return sha256_digest(json.dumps({"penstock": __version__, "parts": versions, "code": code}).encode())
