"""Which files of a Hugging Face folder become a version, where they stand in it, and what its card says of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.core.errors import BadRequest
from penstock.registry.files import check_path
from penstock.registry.making import WEIGHTS

HUB_CARD = "HUB-README.md"  # a card that is none by our rules
_AT_TOP = {"README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE"}
_BESIDE = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_RELATIONS = {"finetune": "fine_tuned_from", "quantized": "quantised_from", "merge": "merged_from"}
_MOST_LINE = 1024


def choose_files(names: Iterable[str], source: str) -> list[str]:
    """Those of the files at the top of `source` that a version takes: weights, configuration, tokenizer, card, licence. No pickles, no code, nothing in folders.

    Raises:
        BadRequest: if there are no safetensors, or no config.json.
    """
    there = sorted(name for name in names if "/" not in name)
    weights = [name for name in there if name.endswith(".safetensors")]
    model = [name for name in weights if name == "model.safetensors" or name.startswith("model-")]
    if not weights:
        pickled = [name for name in there if name.endswith(_PICKLED)]
        why = (
            f"its weights are pickles ({', '.join(pickled[:3])}), which run code when they are read"
            if pickled
            else "it has none"
        )
        raise BadRequest(
            f"{source} holds no safetensors: {why}.",
            code="no_weights",
            param="SOURCE",
            hint="Many models have a revision with safetensors: hf:ORG/NAME@refs/convert/safetensors, or refs/pr/N."
            if pickled
            else None,
        )
    if "config.json" not in there:
        raise BadRequest(
            f"{source} holds no config.json, so nothing says what its weights are of.", code="no_config", param="SOURCE"
        )
    kept = [name for name in there if name in _AT_TOP or name in _BESIDE]
    return [check_path(name) for name in [*(model or weights), *kept]]


def place_of(name: str) -> str:
    """Where a file of the folder stands in the version."""
    return name if name in _AT_TOP else f"{WEIGHTS}/{name}"


def metadata_of(card: Mapping[str, Any], imported: dict[str, Any]) -> dict[str, Any]:
    """A version's metadata, by the front matter of its card and what is known of where it came from."""
    found: dict[str, Any] = {"annotations": {"imported": imported}}
    licence = card.get("license_name") or card.get("license")
    if isinstance(licence, str):
        found["licence"] = licence[:256]
    if isinstance(card.get("pipeline_tag"), str):
        found["task"] = card["pipeline_tag"][:64]
    languages = _texts(card.get("language"))
    if languages:
        found["languages"] = languages[:200]
    bases = _texts(card.get("base_model"))
    if bases:
        found["dependencies"] = {"base_model": ", ".join(bases)[:_MOST_LINE]}
        relation = _RELATIONS.get(str(card.get("base_model_relation", "finetune")))
        if relation is not None:
            found["lineage"] = [{"relation": relation, "external": f"hf:{base}"[:_MOST_LINE]} for base in bases[:20]]
    return found


def _texts(value: object) -> list[str]:
    return [one[:_MOST_LINE] for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]
