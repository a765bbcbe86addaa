"""Which files of a Hugging Face folder a version takes, and what its card becomes."""

import pytest

from penstock.core.errors import BadRequest
from penstock.registry.hub import choose_files, metadata_of, place_of


def test_weights_configuration_and_tokenizer_are_taken_and_nothing_that_runs() -> None:
    there = ["model.safetensors", "config.json", "tokenizer.json", "README.md", "LICENSE", "vocab.json", "merges.txt"]
    left_out = [
        "pytorch_model.bin",
        "modeling_x.py",
        "onnx/model.onnx",
        "tf_model.h5",
        "consolidated.safetensors",
        ".gitattributes",
    ]
    assert sorted(choose_files([*there, *left_out], "x")) == sorted(there)
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert sorted(choose_files([*parts, "config.json", "consolidated.safetensors"], "x")) == sorted(
        [*parts, "config.json"]
    )
    assert choose_files(["weights.safetensors", "config.json"], "x") == ["weights.safetensors", "config.json"]
    assert [place_of(name) for name in ("README.md", "config.json")] == ["README.md", "safetensors/config.json"]


def test_what_has_no_safetensors_is_refused_with_the_reason() -> None:
    with pytest.raises(BadRequest, match="pickles") as raised:
        choose_files(["pytorch_model.bin", "config.json"], "hf:a/b@main")
    assert "refs/convert/safetensors" in (raised.value.hint or "")
    with pytest.raises(BadRequest, match="it has none"):
        choose_files(["config.json"], "x")
    with pytest.raises(BadRequest, match=r"config\.json"):
        choose_files(["model.safetensors"], "x")


def test_a_card_becomes_metadata() -> None:
    card = {
        "license": "mit",
        "pipeline_tag": "text-generation",
        "language": "en",
        "base_model": ["a/b"],
        "base_model_relation": "quantized",
    }
    told = metadata_of(card, {"from": "hf:c/d@0"})
    assert told == {
        "annotations": {"imported": {"from": "hf:c/d@0"}},
        "licence": "mit",
        "task": "text-generation",
        "languages": ["en"],
        "dependencies": {"base_model": "a/b"},
        "lineage": [{"relation": "quantised_from", "external": "hf:a/b"}],
    }
    assert metadata_of({"license": ["mit"], "base_model": 3, "language": [None]}, {}) == {
        "annotations": {"imported": {}}
    }
