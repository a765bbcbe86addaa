"""Tokenizers against what openvino_tokenizers' own converter made of the same file, and against the algorithm itself."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.engine.convert.tokenizer import build_tokenizer
from penstock.engine.text import Tokenizer
from tests.engine.convert.models import byte_names, write_tokenizer

pytestmark = pytest.mark.engine
STARTER = Path(__file__).parents[3] / "examples/support_bot/models/support-bot-v1.1.0"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


def loaded(source: Path, target: Path) -> Tokenizer:
    import openvino as ov

    target.mkdir(parents=True, exist_ok=True)
    for graph, name in zip(build_tokenizer(source), ("openvino_tokenizer", "openvino_detokenizer"), strict=True):
        ov.save_model(graph, target / f"{name}.xml")
    return Tokenizer(target)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    mine = loaded(STARTER / "safetensors", tmp_path_factory.mktemp("t"))
    return mine, Tokenizer(STARTER / "openvino-int8")


def test_it_is_told_what_the_converter_tells(both: tuple[Tokenizer, Tokenizer]) -> None:
    mine, other = both
    assert (mine.size, mine.eos_id, mine.bos_id) == (other.size, other.eos_id, other.bos_id)
    assert mine.template == other.template
    assert mine.pieces == other.pieces


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("<|user|>Hi, where's my order 12345?\n\n  Thanks!<|end|><|assistant|>")
@example("  naïve café 北京 🎉\r\n\t x")
def test_it_encodes_and_decodes_as_the_converter_s_does(both: tuple[Tokenizer, Tokenizer], text: str) -> None:
    mine, other = both
    for special in (True, False):
        assert mine.encode(text, special=special) == other.encode(text, special=special)
    tokens = mine.encode(text, special=False)
    texts = []
    for one in both:
        detokenizer = one.detokenizer()
        texts.append(detokenizer.feed(tokens) + detokenizer.finish())
    assert texts[0] == texts[1]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, dict[str, int], list[str]]:
    folder = tmp_path_factory.mktemp("pairs")
    write_tokenizer(folder, 3000)
    told = json.loads((folder / "tokenizer.json").read_text())["model"]
    return loaded(folder, folder / "b"), told["vocab"], told["merges"]


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("abzAZ 09!?,.\n-'"), max_size=30))
def test_pairs_are_merged_by_rank(pairs: tuple[Tokenizer, dict[str, int], list[str]], text: str) -> None:
    tokenizer, vocabulary, merges = pairs
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    names = byte_names()
    right = []
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"  # GPT-2's, in ASCII
    for word in re.findall(pattern, text):
        parts = [names[byte] for byte in word.encode()]
        while True:  # Sennrich et al. 2016, algorithm 1, as it is applied
            ranked = [(ranks.get(f"{a} {b}", len(ranks)), at) for at, (a, b) in enumerate(itertools.pairwise(parts))]
            best = min(ranked, default=(len(ranks), 0))
            if best[0] == len(ranks):
                break
            parts[best[1] : best[1] + 2] = ["".join(parts[best[1] : best[1] + 2])]
        right += [vocabulary[part] for part in parts]
    assert tokenizer.encode(text, special=False) == right


def test_what_is_no_byte_level_bpe_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, 300)
    file = tmp_path / "tokenizer.json"
    whole = json.loads(file.read_text())

    def refused(**change: Any) -> str:
        file.write_text(json.dumps(whole | change))
        with pytest.raises(BadRequest) as raised:
            build_tokenizer(tmp_path)
        assert raised.value.code == "unsupported_model"
        return raised.value.message

    assert "Unigram" in refused(model=whole["model"] | {"type": "Unigram"})
    assert "byte-level" in refused(pre_tokenizer={"type": "Metaspace"})
    assert "Precompiled" in refused(normalizer={"type": "Precompiled"})
    assert "BertProcessing" in refused(post_processor={"type": "BertProcessing"})
    assert "WordPiece" in refused(decoder={"type": "WordPiece"})
    assert "byte_fallback" in refused(model=whole["model"] | {"byte_fallback": True})
    file.unlink()
    with pytest.raises(BadRequest, match=r"no tokenizer\.json"):
        build_tokenizer(tmp_path)
