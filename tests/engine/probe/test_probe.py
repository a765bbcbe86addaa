"""The probe against transformers: the figures of reference.json were made by make_reference.py, in torch."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, Damaged, NotFound
from penstock.core.metrics import TABLE
from penstock.engine.probe.attention import AttentionSums
from penstock.engine.probe.llama import Llama
from penstock.engine.probe.record import ProbeRecord
from penstock.engine.probe.records import ProbeCollector, read_records, save_record
from penstock.engine.probe.requests import read_prompts
from penstock.engine.probe.run import Asked, Probe
from penstock.engine.probe.weights import Weights
from tests.engine.probe.grouped import TOKENS, tensors, write

MODELS = Path("examples/support_bot/models")
REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "reference.json").read_text())
ASKED = [Asked((("user", question),), answer) for question, answer in REFERENCE["texts"]]


@pytest.mark.engine
@pytest.mark.parametrize("name", ["support-bot-v1.0.0", "support-bot-v1.1.0"])
def test_the_starters_figures_are_those_of_transformers(name: str) -> None:
    expected = REFERENCE["models"][name]
    probe = Probe(MODELS / name)
    assert [prompt + answer for prompt, answer in map(probe.tokens, ASKED)] == expected["tokens"]
    record = probe.run(ASKED, model=name, now=lambda: 7.0)
    for field in ("entropy_nats", "entropy_ratio", "sink_ratio"):
        assert [getattr(one, field) for one in record.layers] == pytest.approx(expected[field], rel=1e-4), field
    assert record.perplexity == pytest.approx(expected["perplexity"], rel=1e-4)
    assert (record.scored, record.requests, record.at, record.cut) == (expected["scored"], 4, 7.0, 0)
    assert record.tokens == sum(map(len, expected["tokens"]))
    assert record.sink_ratio == pytest.approx(sum(expected["sink_ratio"]) / len(expected["sink_ratio"]), rel=1e-4)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_grouped_heads_and_biases_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    llama = Llama(write(tmp_path, kind))
    near = {"F32": 1e-4, "F16": 5e-2, "BF16": 5e-1}[kind]
    for tokens, expected in zip(TOKENS, REFERENCE["grouped"], strict=True):
        seen: dict[int, Any] = {}
        logits = llama.forward(tokens, seen.__setitem__)
        assert logits.shape == (len(tokens), 96)
        assert np.abs(logits[-1] - expected["logits"]).max() < near
        if kind == "F32":
            for layer, rows in enumerate(expected["last_queries"]):
                assert np.allclose(seen[layer][:, -1], rows, atol=1e-5)
        assert all(np.allclose(one.sum(axis=2), 1, atol=1e-5) for one in seen.values())


def test_even_attention_has_all_the_entropy_and_a_sink_none() -> None:
    count = 8
    even = np.tril(np.ones((2, count, count), np.float32))
    even /= even.sum(axis=2, keepdims=True)
    sink = np.zeros((2, count, count), np.float32)
    sink[:, :, 0] = 1
    sums = AttentionSums(2)
    sums.see(0, even)
    sums.see(1, sink)
    first, second = sums.figures()
    assert first.entropy_ratio == pytest.approx(1)
    assert first.entropy_nats == pytest.approx(sum(math.log(n) for n in range(2, count + 1)) / (count - 1))
    assert first.sink_ratio == pytest.approx(sum(1 / n for n in range(2, count + 1)) / (count - 1))
    assert (second.entropy_nats, second.entropy_ratio, second.sink_ratio) == (0, 0, 1)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_figures_stay_within_their_bounds_and_add_up_over_texts(count: int, seed: int) -> None:
    rows = np.tril(np.random.default_rng(seed).random((3, count, count)).astype(np.float32) + 1e-3)
    rows /= rows.sum(axis=2, keepdims=True)
    once, twice = AttentionSums(1), AttentionSums(1)
    once.see(0, rows)
    twice.see(0, rows)
    twice.see(0, rows)
    assert once.figures() == [] if count == 1 else len(once.figures()) == 1
    for one, two in zip(once.figures(), twice.figures(), strict=True):
        assert 0 <= one.entropy_ratio <= 1 + 1e-6 and 0 <= one.sink_ratio <= 1 + 1e-6
        assert msgspec.structs.astuple(one) == pytest.approx(msgspec.structs.astuple(two))


def test_other_models_and_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "good")
    for field, value in (("model_type", "mamba"), ("rope_scaling", {"rope_type": "llama3"}), ("hidden_act", "gelu")):
        other = shutil.copytree(folder, tmp_path / field)
        config = json.loads((folder / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(BadRequest, match="llama"):
            Llama(other)
    with pytest.raises(BadRequest, match="0 to 95"):
        Llama(folder).forward([96])
    with pytest.raises(NotFound, match="safetensors"):
        Weights(tmp_path)
    with pytest.raises(NotFound, match="openvino_tokenizer"):
        Probe(tmp_path)
    file = tmp_path / "good" / "model.safetensors"
    data = file.read_bytes()
    for damaged in (b"", data[:4], data[:100], b"\xff" * 64):
        file.write_bytes(damaged)
        with pytest.raises(Damaged):
            Weights(folder)
    file.write_bytes(data[:-64])
    with pytest.raises(Damaged, match="does not lie"):
        Weights(folder).get(list(tensors())[-1])
    with pytest.raises(Damaged, match="no tensor"):
        Weights(folder).get("nothing")


def test_prompts_are_declared_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text(
        '# a comment\nhello there\n\n{"prompt": "hi", "answer": "ho"}\n{"messages": [{"role": "system", "content": "s"}]}\n'
    )
    assert read_prompts(file) == [
        Asked((("user", "hello there"),)),
        Asked((("user", "hi"),), "ho"),
        Asked((("system", "s"),)),
    ]
    for wrong in ("", "# nothing\n", '{"text": 1}\n', "{\n"):
        file.write_text(wrong)
        with pytest.raises(BadRequest):
            read_prompts(file)


def test_the_last_record_of_each_version_is_told(tmp_path: Path) -> None:
    record = ProbeRecord(at=5.0, model="bot:v1", requests=3, tokens=9, entropy_ratio=0.5, sink_ratio=0.25)
    save_record(tmp_path, record)
    save_record(tmp_path, msgspec.structs.replace(record, at=6.0, perplexity=2.0))
    save_record(tmp_path, msgspec.structs.replace(record, model="bot:v2"))
    (tmp_path / "other.json").write_text("nonsense")
    assert [(one.model, one.at) for one in read_records(tmp_path)] == [("bot:v1", 6.0), ("bot:v2", 5.0)]
    families = {family.name: family for family in ProbeCollector(tmp_path).collect()}
    assert set(families) == {m.name for m in TABLE if m.name.startswith("penstock_probe_")}
    assert [s.value for s in families["penstock_probe_perplexity"].samples] == [2.0]
    assert families["penstock_probe_attention_sink_ratio"].samples[0].labels == {"version": "bot:v1", "layer": "all"}
    assert next(iter(ProbeCollector(tmp_path / "gone").collect())).samples == []
