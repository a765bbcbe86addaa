"""Where commands keep what they may lose."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's folder for what can be found out again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
