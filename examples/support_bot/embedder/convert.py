"""Turns the trained embedder into int8 OpenVINO, for the embedded engine.

    python -m examples.support_bot.embedder.convert models/support-embedder-v1.0.0/safetensors models/support-embedder-v1.0.0/openvino-int8

Needs the environment of ../requirements-convert.txt. Weights become int8 with one scale a row; activations stay as they are.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

_KEPT = ("config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json", "tokenizer_config.json")


def convert(source: Path, target: Path) -> None:
    """Reads a Hugging Face folder, writes an OpenVINO one. Files already in `target` are replaced."""
    from openvino import save_model
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForFeatureExtraction, OVWeightQuantizationConfig
    from transformers import AutoTokenizer

    model = OVModelForFeatureExtraction.from_pretrained(
        source, export=True, compile=False, quantization_config=OVWeightQuantizationConfig(bits=8, sym=False)
    )
    tokenizer, detokenizer = convert_tokenizer(
        AutoTokenizer.from_pretrained(source), with_detokenizer=True, skip_special_tokens=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        target.mkdir(parents=True, exist_ok=True)
        for path in Path(scratch).glob("openvino_model.*"):
            shutil.copyfile(path, target / path.name)
    save_model(tokenizer, target / "openvino_tokenizer.xml")
    save_model(detokenizer, target / "openvino_detokenizer.xml")
    for name in _KEPT:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with model.safetensors")
    parser.add_argument("target", type=Path, help="folder to write")
    args = parser.parse_args()
    convert(args.source, args.target)
    total = sum(path.stat().st_size for path in args.target.rglob("*") if path.is_file())
    print(f"{args.target}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
