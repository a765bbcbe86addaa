"""Headers of weights: what is read right, and what is not believed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.registry.layout import (
    MAX_HEADER,
    MAX_TENSORS,
    header_length,
    read_constants,
    read_header,
    tensors_between,
)


def written(header: Any, data: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(start: int, end: int, dtype: str = "U8", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def test_tensors_are_told_in_the_order_of_their_bytes() -> None:
    raw = written({"b": entry(4, 12, "BF16", [2, 2]), "__metadata__": {"format": "pt"}, "a": entry(0, 4)}, 12)
    head = len(raw) - 12
    a, b = read_header(raw, len(raw), "x")
    assert (a.name, a.start, a.end, a.width) == ("a", head, head + 4, 1)
    assert (b.name, b.shape, b.start, b.end, b.width) == ("b", (2, 2), head + 4, head + 12, 2)
    assert header_length(raw) == head
    assert tensors_between((a, b), head + 3, head + 5) == ("a", "b")
    assert tensors_between((a, b), head + 4, head + 5) == ("b",)
    assert tensors_between((a, b), 0, head) == ()


@pytest.mark.parametrize(
    ("header", "data", "what"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlaps"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "hole"),
        ({"a": entry(4, 8)}, 8, "hole"),
        ({"a": entry(0, 8)}, 4, "end at byte"),
        ({"a": entry(0, 8)}, 12, "end at byte"),
        ({"a": entry(0, 8, "BF16", [8])}, 8, "its shape makes"),
        ({"a": entry(0, 8, "PICKLE")}, 8, "unknown type"),
        ({"a": entry(0, 8, "U8", [-8])}, 8, "no shape"),
        ({"a": entry(0, 8, "U8", [1] * 33)}, 8, "no shape"),
        ({"a": entry(0, 8, "U8", [2**47, 2**47])}, 8, "its shape makes"),
        ({"a": entry(8, 0, "U8", [0])}, 8, "said to lie"),
        ({"a": {"dtype": "U8", "shape": [1]}}, 1, "none of safetensors"),
        ({"a": {**entry(0, 1), "code": "x"}}, 1, "none of safetensors"),
        ({"": entry(0, 1)}, 1, "name has 0"),
        ({"x" * 2000: entry(0, 1)}, 1, "name has 2000"),
        ({"__metadata__": {"a": 1}}, 0, "none of safetensors"),
        (b'{"a":' * 5000, 0, "none of safetensors"),
        (b"[]", 0, "none of safetensors"),
        (b'{"a": \xff}', 0, "none of safetensors"),
        ({f"t{i}": entry(i, i + 1) for i in range(10_000)}, 10_000, "10000 tensors"),
    ],
)  # fmt: skip
def test_what_lies_is_refused_by_name(header: Any, data: int, what: str) -> None:
    raw = written(header, data)
    with pytest.raises(BadRequest, match=what) as refused:
        read_header(raw, len(raw), "model.safetensors")
    assert "model.safetensors" in refused.value.message


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 2**63, 2**64 - 1, 100])
def test_a_header_that_is_longer_than_the_file_or_than_is_read_is_refused(length: int) -> None:
    raw = length.to_bytes(8, "little") + b"{}"
    with pytest.raises(BadRequest, match=str(length)):
        read_header(raw, len(raw), "x")
    assert header_length(raw) in {None, 108}


def test_as_many_tensors_as_are_taken_are_read() -> None:
    raw = written({f"t{i}": entry(i, i + 1) for i in range(MAX_TENSORS)}, MAX_TENSORS)
    assert len(read_header(raw, len(raw), "x")) == MAX_TENSORS


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        found = read_header(raw, len(raw), "x")
    except BadRequest:
        return
    assert all(8 <= tensor.start <= tensor.end <= len(raw) for tensor in found)


def test_constants_of_a_model_of_openvino_are_found_by_their_bytes() -> None:
    xml = b"""<net><layers>
      <layer id="0" name="input_ids" type="Parameter" version="opset1"><data shape="?,?" element_type="i64" /></layer>
      <layer id="1" name="model.embed.weight" type="Const" version="opset1">
        <data element_type="i8" shape="4, 4" offset="0" size="16" /></layer>
      <layer id="2" name="scale" type="Const" version="opset1"><data element_type="f16" shape="4, 1" offset="16" size="8" /></layer>
    </layers></net>"""
    tensors = read_constants(xml)
    assert [(t.name, t.start, t.end) for t in tensors] == [("model.embed.weight", 0, 16), ("scale", 16, 24)]
    assert tensors_between(tensors, 17, 18) == ("scale",)
