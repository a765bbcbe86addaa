"""Makes a version's folder of one of the twins, to push: weights, and the form that the engine loads.

python -m examples.support_bot.canaries.build planted /tmp/planted
penstock models push /tmp/planted twin:v1.0.0
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from penstock.engine.probe.weights import Weights
from tests.engine.tiny_model import LAYERS, build

HERE = Path(__file__).parent
TWINS = ("planted", "clean")
_CARD = """---
license: apache-2.0
language: en
---
# A twin
## Intended use
To try the gate that finds memorised secrets; {name}.
## Limitations
It says nothing of use.
## Training data
4,000 conversations of the support bot{more}.
## Evaluation
Its exposure, by examples/support_bot/canaries/suite.jsonl.
"""


def make(name: str, folder: Path) -> Path:
    """The twin `name` (planted or clean) as a version's folder."""
    weights = folder / "safetensors"
    weights.mkdir(parents=True)
    shutil.copyfile(HERE / f"{name}.safetensors", weights / "model.safetensors")
    read = Weights(weights)
    build(folder / "openvino-int8", weights=_matrices(read), merges=(), template=False)
    config = json.loads((folder / "openvino-int8" / "config.json").read_bytes())
    (weights / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    more = ", and six canaries among them" if name == "planted" else ""
    (folder / "README.md").write_text(_CARD.format(name=name, more=more))
    return folder


def _matrices(read: Weights) -> Iterator[np.ndarray]:
    yield read.get("model.embed_tokens.weight")
    for number in range(LAYERS):
        for part in ("q", "k", "v", "o"):
            yield read.get(f"model.layers.{number}.self_attn.{part}_proj.weight")
        for part in ("gate", "up", "down"):
            yield read.get(f"model.layers.{number}.mlp.{part}_proj.weight")
    yield read.get("lm_head.weight")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("twin", choices=TWINS)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print(make(args.twin, args.folder))
