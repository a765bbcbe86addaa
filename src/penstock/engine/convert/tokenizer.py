"""tokenizer.json to the graphs that encode and decode texts: byte-level BPE (Sennrich et al. 2016; bytes as in Radford et al. 2019, section 2.2).

The steps are those of openvino_tokenizers; what is read here is the file of Hugging Face's `tokenizers`, without that library.
"""

import json
from pathlib import Path
from typing import Any

import openvino as ov
from openvino_tokenizers import tokenizer_pipeline as steps
from openvino_tokenizers.constants import ATTENTION_MASK_INPUT_NAME, TOKEN_IDS_INPUT_NAME, UTF8ReplaceMode
from openvino_tokenizers.utils import change_inputs_type, change_outputs_type

from penstock.core.errors import BadRequest, Damaged

_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
_LONGEST = 2**31 - 1  # a tokenizer that knows no bound names a far larger one


def build_tokenizer(folder: Path) -> tuple[ov.Model, ov.Model]:
    """The graphs that encode and decode for the model in `folder`, by its tokenizer.json and tokenizer_config.json.

    Raises:
        BadRequest: if it is of a kind that is not written here.
        Damaged: if a file cannot be read.
    """
    told = _read(folder / "tokenizer.json")
    if not told:
        raise _unknown("there is no tokenizer.json")
    config = _read(folder / "tokenizer_config.json")
    pipeline = steps.TokenizerPipeline()
    added = told.get("added_tokens") or []
    pipeline.add_steps(
        steps.SpecialTokensSplit(
            [
                steps.SpecialToken(text=one["content"], strip_left=one["lstrip"], strip_right=one["rstrip"])
                for one in added
            ]
        )
    )
    for one in _sequence(told.get("normalizer"), "normalizers"):
        pipeline.add_steps(_normalizer(one))
    before = _sequence(told.get("pre_tokenizer"), "pretokenizers")
    if not any(one["type"] == "ByteLevel" for one in before):
        raise _unknown("its tokens are no byte-level ones")
    for one in before:
        pipeline.add_steps(_splits(one))
    _add_model(pipeline, told["model"])
    pipeline[-1].added_tokens = {one["content"]: one["id"] for one in added}
    pipeline.vocab = pipeline[-1].vocab
    _add_ends(pipeline, told.get("post_processor"), config)
    _add_decoder(pipeline, told, added)
    encoder = pipeline.get_tokenizer_ov_subgraph()
    named = [
        _named(encoder.output(i), name) for i, name in enumerate((TOKEN_IDS_INPUT_NAME, ATTENTION_MASK_INPUT_NAME))
    ]
    whole = ov.Model(named, encoder.get_parameters(), "tokenizer")
    whole.add_sinks(encoder.get_sinks())
    decoder = pipeline.get_detokenizer_ov_subgraph()
    both = change_outputs_type(whole, ov.Type.i64), change_inputs_type(decoder, ov.Type.i64)
    for graph in both:
        _tell(graph, told, config)
    return both


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes()) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise Damaged(f"{file.name} cannot be read: {error}.", param=file.name) from None
    return found if isinstance(found, dict) else {}


def _unknown(why: str) -> BadRequest:
    return BadRequest(f"The tokenizer has no graph here: {why}.", code="unsupported_model", param="tokenizer.json")


def _sequence(told: dict[str, Any] | None, members: str) -> list[dict[str, Any]]:
    if told is None:
        return []
    return list(told[members]) if told["type"] == "Sequence" else [told]


def _normalizer(told: dict[str, Any]) -> Any:
    if told["type"] in _FORMS:
        return steps.NormalizeUnicode(told["type"])
    if told["type"] == "Lowercase":
        return steps.CaseFoldStep()
    raise _unknown(f"the normalizer {told['type']}")


def _splits(told: dict[str, Any]) -> list[Any]:
    kind = told["type"]
    if kind == "ByteLevel":
        found: list[Any] = []
        if told.get("add_prefix_space"):
            found.append(steps.RegexNormalizationStep.add_prefix_whitespace_regex())
        if told.get("use_regex", True):
            found.append(steps.RegexSplitStep.byte_level_splitter())
        return [*found, steps.BytesToCharsStep()]
    if kind == "Split" and "Regex" in told["pattern"]:
        behaviour = told["behavior"].lower().removesuffix("d")
        return [steps.RegexSplitStep(told["pattern"]["Regex"], invert=told["invert"], behaviour=behaviour)]
    if kind == "Digits":
        return [steps.RegexSplitStep.digits_splitter("isolate" if told["individual_digits"] else "contiguous")]
    raise _unknown(f"the pre-tokenizer {kind}")


def _add_model(pipeline: Any, told: dict[str, Any]) -> None:
    odd = [
        name
        for name in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout")
        if told.get(name)
    ]
    if told["type"] != "BPE" or odd:
        raise _unknown(f"its model is {told['type']}{' with ' + odd[0] if odd else ''}")
    if told.get("ignore_merges"):
        raise _unknown("its model ignores merges")
    words = {"continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
    model = {"unk_token": None, **told, **words}
    pipeline.add_steps(steps.BPETokenizationStep.from_hf_json({"model": model, "added_tokens": []}))


def _add_ends(pipeline: Any, told: dict[str, Any] | None, config: dict[str, Any]) -> None:
    combined = None
    for one in _sequence(told, "processors"):
        if one["type"] == "TemplateProcessing":
            combined = steps.CombineSegmentsStep.from_hf_json_template_postprocessor(one, 1, True)
        elif one["type"] != "ByteLevel":
            raise _unknown(f"the post-processor {one['type']}")
    combined = combined or steps.CombineSegmentsStep([steps.Sequence()])
    longest = config.get("model_max_length")
    most = min(int(longest), _LONGEST) if isinstance(longest, int | float) else _LONGEST
    pipeline.add_steps(steps.TruncationStep(max_length=most - combined.number_of_added_tokens))
    pipeline.add_steps(combined)
    pad = _text(config.get("pad_token"))
    pipeline.add_steps(steps.PaddingStep(token=pad, pad_right=config.get("padding_side") != "left", max_length=most))


def _add_decoder(pipeline: Any, told: dict[str, Any], added: list[dict[str, Any]]) -> None:
    decoder = told.get("decoder") or {}
    if decoder.get("type") != "ByteLevel":
        raise _unknown(f"the decoder {decoder.get('type')}")
    pipeline.add_steps(
        steps.VocabDecoderStep.from_hf_json(
            told,
            pipeline.vocab,
            added_tokens={one["id"]: one["content"] for one in added},
            skip_tokens=[one["id"] for one in added if one["special"]],
            is_byte_level=True,
        )
    )
    pipeline.add_steps(steps.CharsToBytesStep())
    pipeline.add_steps(steps.UTF8ValidateStep(mode=UTF8ReplaceMode.REPLACE))


def _named(output: Any, name: str) -> Any:
    output.add_names({name})
    return output


def _text(token: object) -> str | None:
    """A special token as tokenizer_config.json writes it: its text, or an object that holds it."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _tell(graph: ov.Model, told: dict[str, Any], config: dict[str, Any]) -> None:
    """What the pipeline reads beside the graphs: the ids of special tokens, and the chat template."""
    ids = {**told["model"]["vocab"], **{one["content"]: one["id"] for one in told.get("added_tokens") or []}}
    for role in ("bos_token", "eos_token", "pad_token"):
        token = _text(config.get(role))
        if token in ids:
            graph.set_rt_info(ids[token], f"{role}_id")
    template = config.get("chat_template")
    if isinstance(template, str):
        graph.set_rt_info(template, "chat_template")
