"""Cutting files into blocks."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.registry.blocks import (
    BLOCK,
    MAX_BATCH_BLOCKS,
    Block,
    Cutter,
    batch_head,
    batch_head_length,
    batches,
    block_name,
    check_recipe,
    cuts,
    cuts_of,
    pack_recipe,
    read_batch_head,
    seal_of,
    unpack_recipe,
)


def weights(sizes: dict[str, int], seed: int = 0) -> bytes:
    """A safetensors file whose tensors have random bytes, the same for the same name."""
    header, at = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(random.Random(f"{seed} {n}").randbytes(s) for n, s in sizes.items())  # fmt: skip


def names(data: bytes) -> list[str]:
    found, at = [], 0
    for size in cuts_of(data, len(data)):
        found.append(block_name(data[at : at + size]))
        at += size
    assert at == len(data)
    return found


SIZES = {"embed": BLOCK + 1000, "norm": 64, "layer.0": 3000, "layer.1": 5000}


def test_a_tensor_keeps_its_blocks_wherever_it_moves_to() -> None:
    before = names(weights(SIZES))
    moved = names(weights(dict(reversed(SIZES.items()))))
    assert set(moved[1:]) == set(before[1:])
    shard = names(weights({"layer.1": 5000}))
    assert set(shard[1:]) <= set(before)
    grown = names(weights({**SIZES, "new": 70}))
    assert len(set(grown[1:]) - set(before)) == 1


def test_what_is_no_header_is_cut_in_equal_pieces() -> None:
    assert cuts(2 * BLOCK + 1) == (BLOCK, BLOCK, 1)
    assert cuts(0) == ()
    liar = (100).to_bytes(8, "little") + b"{" + bytes(BLOCK)
    assert cuts_of(liar, len(liar)) == cuts(len(liar))


@given(st.lists(st.integers(1, 400), max_size=30), st.sampled_from(["weights", "other", "tiny"]))
def test_a_file_is_cut_alike_however_it_comes(steps: list[int], kind: str) -> None:
    data = {"weights": weights({"a": 300, "b": 700, "c": 1}), "other": b"\x01" * 3000, "tiny": b"{}"}[kind]
    cutter = Cutter(len(data))
    found, at = [], 0
    for step in steps:
        found += cutter.feed(data[at : at + step])
        at += step
    found += [*cutter.feed(data[at:]), *cutter.end()]
    assert b"".join(found) == data
    assert [len(block) for block in found] == list(cuts_of(data, len(data)))


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, BLOCK))))
def test_recipes_are_kept_as_they_are(entries: list[tuple[bytes, int]]) -> None:
    recipe = tuple(Block(name.hex(), size) for name, size in entries)
    raw = pack_recipe(recipe)
    assert unpack_recipe(raw) == recipe
    assert len(seal_of(raw)) == 64


@pytest.mark.parametrize(
    ("blocks", "size"),
    [
        ([["0" * 64, 1]], 2),
        ([["0" * 63, 1]], 1),
        ([["../" + "0" * 61, 1]], 1),
        ([["A" * 64, 1]], 1),
        ([["0" * 64, 0]], 0),
        ([["0" * 64, -1], ["0" * 64, 2]], 1),
        ([["0" * 64, BLOCK + 1]], BLOCK + 1),
        ([["0" * 64]], 1),
        ([[1, 1]], 1),
    ],
)
def test_recipes_that_lie_are_refused(blocks: list[list[object]], size: int) -> None:
    with pytest.raises(BadRequest, match=r"a\.bin"):
        check_recipe(blocks, size, "a.bin")


def test_what_a_request_brings_is_written_before_it() -> None:
    recipe = (Block("0" * 64, 5), Block("f" * 64, BLOCK))
    head = batch_head(recipe)
    assert batch_head_length(head[:3]) is None
    assert batch_head_length(head[:4]) == len(head)
    assert read_batch_head(head) == recipe
    for hostile in (b"\0\0\0\0", b"\xff\xff\xff\xff", (MAX_BATCH_BLOCKS + 1).to_bytes(4, "big")):
        with pytest.raises(BadRequest):
            batch_head_length(hostile)
    for big in ((Block("0" * 64, BLOCK + 1),), (Block("0" * 64, 0),), (Block("0" * 64, BLOCK),) * 17):
        with pytest.raises(BadRequest):
            read_batch_head(batch_head(big))


@given(st.lists(st.integers(1, 100)))
def test_batches_keep_the_order_and_their_bound(sizes: list[int]) -> None:
    recipe = [Block(f"{i:064x}", size) for i, size in enumerate(sizes)]
    found = batches(recipe, 128)
    assert [block for part in found for block in part] == recipe
    assert all(part and sum(block.size for block in part) <= 128 for part in found)
