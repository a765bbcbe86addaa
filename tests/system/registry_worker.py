"""Pushes, promotes, deletes and sweeps without end, as the commands do, and says what it was told: `python -m tests.system.registry_worker URL KEY FOLDER SEED`.

A line `begin LABEL` stands before each push, `committed LABEL DIGEST` after it, `delete LABEL` before a version is given up.
"""

import contextlib
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

from penstock.cli.main import cli
from penstock.core.errors import PenstockError
from tests.control.house import safetensors


def told(*words: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        cli.main([*words, "--json"], standalone_mode=False)
    found: dict[str, Any] = json.loads(text.getvalue())
    return found


def main(url: str, key: str, folder: str, seed: str) -> None:
    """Runs until it is killed, or control is."""
    draw = random.Random(int(seed))
    where = ("--url", url, "--key", key)
    source = Path(folder)
    (source / "openvino-int8").mkdir(parents=True, exist_ok=True)
    tensors = {f"t{i}": draw.randbytes(200_000) for i in range(6)}
    kept: list[str] = []
    number = int(seed) * 1000
    while True:
        number += 1
        tensors[f"t{draw.randrange(6)}"] = draw.randbytes(200_000)
        (source / "model.safetensors").write_bytes(safetensors(**tensors))
        (source / "openvino-int8" / "openvino_model.xml").write_text("<net/>")
        (source / "openvino-int8" / "openvino_model.bin").write_bytes(draw.randbytes(50_000))
        label = f"run{number}"
        print("begin", label, flush=True)
        version = told("models", "push", str(source), f"m:{label}", *where)
        print("committed", label, version["digest"], flush=True)
        kept.append(label)
        if draw.random() < 0.4:
            told("promote", f"m:{label}", "--to", "dev", *where)
            kept.pop()  # what an environment ran is not given up
        if draw.random() < 0.5 and len(kept) > 2:
            gone = kept.pop(0)
            print("delete", gone, flush=True)
            told("models", "delete", f"m:{gone}", "--yes", *where)
        told("models", "gc", "--grace", "0", *where)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PenstockError as error:  # control was killed
        sys.exit(f"{error.message}")
