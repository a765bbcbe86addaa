"""`python -m penstock.engine.convert SOURCE TARGET PRECISION`: one conversion in a process of its own, whose memory goes with it.

Says each step as a line of JSON on stdout: `{"step": ...}`; at the end `{"error": {"message", "code"}}` where it cannot be done, with status 1.
"""

import sys
from pathlib import Path
from typing import Any, get_args

import msgspec

from penstock.core.errors import PenstockError
from penstock.engine.convert.compress import Precision
from penstock.engine.convert.folder import convert


def main(argv: list[str]) -> int:
    """The exit status."""
    source, target, precision = argv
    try:
        convert(Path(source), Path(target), msgspec.convert(precision, Precision), lambda step: _say({"step": step}))
    except PenstockError as error:
        _say({"error": {"message": error.message, "code": error.code}})
        return 1
    return 0


def _say(told: dict[str, Any]) -> None:
    print(msgspec.json.encode(told).decode(), flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[3] not in get_args(Precision):
        sys.exit(f"usage: python -m penstock.engine.convert SOURCE TARGET {'|'.join(get_args(Precision))}")
    sys.exit(main(sys.argv[1:]))
