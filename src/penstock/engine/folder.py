"""A model's folder as the engine reads it: what the model is, before anything heavy is loaded."""

import json
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.errors import Damaged, NotFound
from penstock.engine.lifted import MODEL
from penstock.registry.processing import CODE
from penstock.registry.processing import FILE as PROCESSING

BLOCK_TOKENS = 32  # the CPU plugin's KV block
_LEAST_BLOCKS = 64
_UNKNOWN_CONTEXT = 4096


class ModelFolder(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of one model say.

    Attributes:
        context: tokens that prompt and completion may have together, as the model was trained.
        stop_ids: tokens that end a completion.
        block_bytes: size of one block of the KV cache in memory; 0 if the configuration does not tell.
        defaults: sampling parameters that the model's makers recommend, used where a request says nothing.
        template: the chat template's source, if the model has one.
        special: texts of special tokens by role (`bos_token`, `eos_token`), for the template.
        processing: what stands in the version's `processing.json`; empty: there is none.
        code: what stands in `processing.py`; None: there is none.
        created: when the model file was written, Unix seconds.
    """

    directory: Path
    context: int
    stop_ids: tuple[int, ...]
    bos_id: int | None = None
    block_bytes: int = 0
    defaults: dict[str, float] = {}
    template: str | None = None
    special: dict[str, str] = {}
    processing: bytes = b""
    code: bytes | None = None
    created: int = 0

    def kv_blocks(self, megabytes: int) -> int:
        """Blocks of KV cache that `megabytes` MiB hold, but always enough for one sequence of full length."""
        blocks = (megabytes << 20) // self.block_bytes if self.block_bytes else 0
        return max(blocks, _LEAST_BLOCKS, -(-self.context // BLOCK_TOKENS) + 1)


def read_folder(directory: Path) -> ModelFolder:
    """The model in `directory`: OpenVINO's `openvino_model.xml` and `.bin`, its tokenizers, and the Hugging Face JSON files.

    Raises:
        NotFound: if the folder or a file that is needed is not there.
        Damaged: if a JSON file is none.
    """
    if not directory.is_dir():
        raise NotFound(
            f"{directory} is no folder; name one that holds a model in OpenVINO's form.", code="model_not_found"
        )
    for name in (MODEL, "openvino_model.bin", "openvino_tokenizer.xml", "openvino_detokenizer.xml"):
        if not (directory / name).is_file():
            raise NotFound(
                f"{directory} has no {name}; the engine serves models in OpenVINO's form.",
                code="model_not_found",
                hint="Convert the model first: optimum-cli export openvino.",
            )
    config = _read(directory / "config.json")
    config = {**config, **config.get("text_config", {})}
    generation = _read(directory / "generation_config.json")
    tokenizer = _read(directory / "tokenizer_config.json")
    stops: list[int] = []
    for source in (generation, config):
        value = source.get("eos_token_id")
        stops += [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int) and i not in stops]
    bos = config.get("bos_token_id")
    return ModelFolder(
        directory=directory,
        context=_context(config, tokenizer),
        stop_ids=tuple(stops),
        bos_id=bos if isinstance(bos, int) else None,
        block_bytes=_block_bytes(config),
        defaults=_defaults(generation),
        template=_template(directory, tokenizer),
        special=_special(directory, tokenizer),
        processing=(directory / PROCESSING).read_bytes() if (directory / PROCESSING).is_file() else b"",
        code=(directory / CODE).read_bytes() if (directory / CODE).is_file() else None,
        created=int((directory / MODEL).stat().st_mtime),
    )


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_bytes())
    except ValueError as error:
        raise Damaged(f"{file} is not JSON: {error}.", param=str(file)) from None
    if not isinstance(value, dict):
        raise Damaged(f"{file} holds no JSON object.", param=str(file))
    return value


def _context(config: dict[str, Any], tokenizer: dict[str, Any]) -> int:
    known = [config.get(name) for name in ("max_position_embeddings", "n_positions", "seq_length")]
    lengths = [value for value in (*known, tokenizer.get("model_max_length")) if isinstance(value, int)]
    return min(lengths, default=_UNKNOWN_CONTEXT)


def _block_bytes(config: dict[str, Any]) -> int:
    """Keys and values are kept in half precision."""
    try:
        layers = int(config.get("num_hidden_layers") or config["n_layer"])  # GPT-2 has names of its own
        heads = int(config.get("num_attention_heads") or config["n_head"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head = int(config.get("head_dim") or (config.get("hidden_size") or config["n_embd"]) // heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0
    return layers * 2 * kv_heads * head * BLOCK_TOKENS * 2


def _defaults(generation: dict[str, Any]) -> dict[str, float]:
    if generation.get("do_sample") is False:
        return {"temperature": 0.0}
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    return {name: generation[name] for name in names if isinstance(generation.get(name), int | float)}


def _template(directory: Path, tokenizer: dict[str, Any]) -> str | None:
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    template = tokenizer.get("chat_template") or _read(directory / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {entry.get("name"): entry.get("template") for entry in template}.get("default")
    return template if isinstance(template, str) else None


def _special(directory: Path, tokenizer: dict[str, Any]) -> dict[str, str]:
    special: dict[str, str] = {}
    for source in (_read(directory / "special_tokens_map.json"), tokenizer):
        for name, value in source.items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                special[name] = text
    return special
