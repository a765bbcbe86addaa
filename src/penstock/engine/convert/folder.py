"""A folder of Hugging Face's layout to one that the engine loads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import openvino as ov

from penstock.core.errors import BadRequest, Damaged, NotFound
from penstock.engine.convert.compress import Precision
from penstock.engine.convert.gpt2 import build_gpt2
from penstock.engine.convert.llama import build_llama
from penstock.engine.convert.tokenizer import build_tokenizer
from penstock.engine.lifted import MODEL
from penstock.engine.probe.weights import Weights

GRAPHS: dict[str, Callable[[dict[str, Any], Weights, Precision], ov.Model]] = {
    "gpt2": build_gpt2,
    "llama": build_llama,
}
# What the engine reads beside the graphs.
_KEPT = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)


def convert(source: Path, target: Path, precision: Precision, say: Callable[[str], None]) -> None:
    """Write to the empty folder `target` what the engine loads of the model in `source`, its matrices in `precision`. The same input gives the same bytes.

    `say` is told each step before it begins.

    Raises:
        BadRequest: `code` is `unsupported_model`: its architecture or tokenizer has no graph here; other converters may know it.
        NotFound, Damaged: if the weights or a file are missing, or cannot be read.
    """
    config = _config(source)
    kind = str(config.get("model_type"))
    build = GRAPHS.get(kind)
    if build is None:
        raise BadRequest(
            f"Models of the type {kind!r} have no graph here; {', '.join(sorted(GRAPHS))} have.",
            code="unsupported_model",
        )
    say("the tokenizer")
    encoder, decoder = build_tokenizer(source)
    say(f"the graph of a {kind} with matrices in {precision}")
    try:
        model = build(config, Weights(source), precision)
    except msgspec.ValidationError as error:
        raise Damaged(f"config.json does not describe a {kind}: {error}.", param="config.json") from None
    say("writing")
    ov.save_model(encoder, target / "openvino_tokenizer.xml", compress_to_fp16=False)
    ov.save_model(decoder, target / "openvino_detokenizer.xml", compress_to_fp16=False)
    ov.save_model(model, target / MODEL, compress_to_fp16=False)
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _config(source: Path) -> dict[str, Any]:
    try:
        config = json.loads((source / "config.json").read_bytes())
    except FileNotFoundError:
        raise NotFound(f"{source.name} has no config.json.", code="model_not_found") from None
    except (OSError, ValueError) as error:
        raise Damaged(f"config.json cannot be read: {error}.", param="config.json") from None
    if not isinstance(config, dict):
        raise Damaged("config.json holds no JSON object.", param="config.json")
    return config
