"""`python toolchain_convert.py SOURCE TARGET PRECISION`: a Hugging Face folder to what the engine loads, by optimum-intel.

Run by the interpreter of the environment that toolchain-requirements.txt describes; nothing of Penstock is there, and nothing of this is imported by it.
Says each step as a line of JSON on stdout: `{"step": ...}`.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_ENDINGS = (".json", ".jinja")
_BITS: dict[str, dict[str, Any]] = {
    "int8": {"bits": 8, "sym": False},
    "int4": {"bits": 4, "sym": False, "group_size": 64, "group_size_fallback": "adjust", "ratio": 1.0},
}


def say(step: str) -> None:
    """One step, for the parent."""
    print(json.dumps({"step": step}), flush=True)  # noqa: T201


def convert(source: Path, target: Path, precision: str) -> None:
    """Write the graphs and the files beside them."""
    say("loading optimum-intel")
    from openvino import save_model
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig  # type: ignore[import-not-found]
    from transformers import AutoTokenizer

    wanted: dict[str, Any] = {}
    if precision in _BITS:
        wanted["quantization_config"] = OVWeightQuantizationConfig(**_BITS[precision])
    else:
        wanted["load_in_8bit"] = False
    say(f"tracing the model, matrices in {precision}")
    model = OVModelForCausalLM.from_pretrained(source, export=True, stateful=True, compile=False, **wanted)
    if precision == "fp16":
        model.half()
    say("the tokenizer")
    tokenizer, detokenizer = convert_tokenizer(
        AutoTokenizer.from_pretrained(source), with_detokenizer=True, skip_special_tokens=True
    )
    say("writing")
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        for path in Path(scratch).glob("openvino_model.*"):
            shutil.copyfile(path, target / path.name)
    save_model(tokenizer, target / "openvino_tokenizer.xml")
    save_model(detokenizer, target / "openvino_detokenizer.xml")
    for path in source.iterdir():
        if path.suffix in _ENDINGS and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
