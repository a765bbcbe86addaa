"""Bump rules, tokenizers, metrics, sums over tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.registry.datasets import DataSet, Transformation, chain_of
from penstock.registry.diff import (
    RULES,
    Difference,
    TensorChange,
    Tensors,
    TokenizerChange,
    compare_metrics,
    compare_tokenizers,
    differences,
    suggest,
)
from penstock.registry.lineage import Edge, graph_around
from penstock.registry.tensors import Sums, numbers

VALUES = TensorChange(name="w", change="values", relative=0.1, cosine=0.9)
CASES: list[tuple[Difference, str | None, str]] = [
    (Difference(), None, ""),
    (Difference(tensors=Tensors(changed=(TensorChange(name="w", change="added"),))), "major", "architecture"),
    (Difference(tokenizer=TokenizerChange(removed=1)), "major", "vocabulary"),
    (Difference(config={"max_position_embeddings": (1024, 512)}), "major", "context"),
    (Difference(template=("--- before", "+++ after", "-{{ x }}")), "major", "no template"),
    (Difference(processing={"output": (None, [{"do": "trim"}])}), "major", "output"),
    (Difference(metadata={"licence": ("mit", "proprietary")}), "major", "licence"),
    (Difference(tensors=Tensors(changed=(VALUES,), relative=0.1)), "minor", "weights"),
    (Difference(tokenizer=TokenizerChange(added=3)), "minor", "tokenizer"),
    (Difference(template=("--- before", "+++ after", "-a", "+b")), "minor", "template"),
    (Difference(processing={"input": (None, [{"do": "trim"}])}), "minor", "input"),
    (Difference(config={"max_position_embeddings": (512, 1024)}), "minor", "configuration"),
    (
        Difference(
            metrics=compare_metrics(
                {"right": {"value": 0.9, "lower": 0.88, "upper": 0.92, "higher_is_better": True}},
                {"right": {"value": 0.8, "lower": 0.78, "upper": 0.82}},
            )
        ),
        "minor",
        "worse",
    ),
    (Difference(tensors=Tensors(changed=(VALUES,), relative=1e-7)), "patch", "rounding"),
    (Difference(card=("+ a",)), "patch", "told"),
]


@pytest.mark.parametrize(("difference", "bump", "rule"), CASES)
def test_each_rule_gives_its_bump(difference: Difference, bump: str | None, rule: str) -> None:
    found = suggest(difference)
    assert found.bump == bump
    assert found.reasons[0].startswith(f"{bump} ({rule}):") or bump is None


def test_every_rule_has_a_case_and_stands_in_the_page() -> None:
    assert {rule for _, _, rule in CASES} - {""} == {rule.name for rule in RULES}
    page = (Path(__file__).parents[2] / "docs" / "versions.md").read_text()
    for rule in RULES:
        assert f"| {rule.bump} | {rule.name} | {rule.when} |" in page


def test_the_heaviest_reason_decides() -> None:
    both = Difference(tensors=Tensors(changed=(VALUES,), relative=0.1), metadata={"licence": ("a", "b")}, card=("+",))
    found = suggest(both)
    assert found.bump == "major"
    assert [one.partition(" ")[0] for one in found.reasons] == ["major", "minor", "patch"]


def test_tokenizers_are_compared_by_token_and_merge() -> None:
    old: dict[str, Any] = {
        "model": {"vocab": {"a": 0, "b": 1, "c": 2}, "merges": ["a b", "b c"]},
        "added_tokens": [{"content": "<end>", "id": 3}],
        "normalizer": None,
    }
    new: dict[str, Any] = {
        "model": {"vocab": {"a": 0, "b": 2, "d": 1}, "merges": [["b", "c"], ["a", "b"], ["a", "d"]]},
        "added_tokens": [{"content": "<end>", "id": 3}],
        "normalizer": {"type": "NFC"},
    }
    found = compare_tokenizers(old, new)
    assert (found.added, found.removed, found.moved) == (1, 1, 1)
    assert (found.merges_added, found.merges_removed, found.merges_reordered) == (1, 0, True)
    assert found.settings == ("normalizer",)
    assert found.examples["added"] == ("d",)
    assert not compare_tokenizers(old, old).any


def test_differences_are_paths() -> None:
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "d": 0}) == {
        "a.b": (1, 2),
        "c": ([1], None),
        "d": (None, 0),
    }


@given(st.integers(1, 500), st.integers(1, 50), st.integers(0, 99))
def test_sums_are_those_of_the_whole_whatever_the_pieces(count: int, step: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    a = draw.normal(size=count).astype("<f4")
    b = (a + draw.normal(size=count).astype("<f4") * 0.1).astype("<f4")
    sums = Sums()
    for at in range(0, count, step):
        sums.feed(a[at : at + step].tobytes(), b[at : at + step].tobytes(), "F32", "F32")
    x, y = a.astype(float), b.astype(float)
    assert sums.relative == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x))
    assert sums.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert sums.equal == bool((a == b).all())


def test_types_are_read_as_published() -> None:
    assert numbers(b"\x80\x3f\x00\xc0", "BF16").tolist() == [1.0, -2.0]
    eight = numbers(bytes([0x38, 0xB8, 0x7E, 0x01]), "F8_E4M3")
    assert eight.tolist() == [1.0, -1.0, 448.0, 2.0**-9]  # OCP 8-bit floating point specification, table 1
    wide = numbers(bytes([0x3C, 0x7B]), "F8_E5M2")
    assert wide.tolist() == [1.0, 57344.0]
    sums = Sums()
    sums.feed(bytes(16), bytes(16), "C64", "C64")
    assert (sums.equal, sums.relative) == (True, None)


def test_the_same_numbers_in_another_type_have_not_moved() -> None:
    values = np.array([1.0, -2.0, 0.5], dtype="<f4")
    sums = Sums()
    sums.feed(values.astype("<f2").tobytes(), values.tobytes(), "F16", "F32")
    assert (sums.equal, sums.relative) == (False, 0.0)
    assert sums.cosine == pytest.approx(1.0)


def test_custody_is_followed_to_its_origins_and_its_gaps_are_told() -> None:
    def made(name: str, *inputs: str) -> DataSet:
        steps = (Transformation(what="made", inputs=inputs),) if inputs else ()
        return DataSet(name=name, digest=name, source="" if inputs else "found", transformations=steps)

    known = {one.name: one for one in (made("raw"), made("clean", "raw"), made("mixed", "clean", "lost", "mixed"))}
    found = chain_of("mixed", known)
    assert [link.name for link in found.links] == ["raw", "clean", "mixed"]
    assert "lost, an input of mixed, is not registered." in found.gaps
    assert any("input of itself" in gap for gap in found.gaps)
    assert sum("no licence" in gap for gap in found.gaps) == 3


def test_a_graph_has_ancestors_and_descendants_at_their_distance() -> None:
    def edge(source: str, target: str) -> Edge:
        return Edge(source=source, source_digest=source, relation="fine_tuned_from", kind="version", target=target)

    edges = [edge("c:1", "b:1"), edge("b:1", "a:1"), edge("d:1", "c:1"), edge("z:1", "a:1"), edge("a:1", "a:1")]
    found = graph_around("c:1", "c", edges)
    assert {node.id: node.depth for node in found.nodes} == {"a:1": -2, "b:1": -1, "c:1": 0, "d:1": 1}
