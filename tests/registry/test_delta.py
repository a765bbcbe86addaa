"""Deltas: back again bit for bit, and small where weights have moved a little."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Damaged
from penstock.registry.delta import decode_delta, encode_delta


@given(st.binary(min_size=1, max_size=300), st.randoms(use_true_random=False), st.sampled_from([1, 2, 4, 8]))
def test_a_delta_gives_the_block_back(data: bytes, random: object, width: int) -> None:
    base = random.randbytes(len(data))  # type: ignore[attr-defined]
    assert decode_delta(encode_delta(data, base, width), base, width) == data


def bf16(values: np.ndarray) -> bytes:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()


def test_a_fine_tune_of_small_steps_is_small() -> None:
    random = np.random.default_rng(1)
    before = random.normal(0, 0.02, 500_000)
    base, data = bf16(before), bf16(before + random.normal(0, 1e-4, 500_000))
    delta = encode_delta(data, base, 2)
    assert len(delta) < 0.32 * len(data)
    assert decode_delta(delta, base, 2) == data


def test_a_delta_that_is_damaged_is_told_or_gives_other_bytes() -> None:
    data, base = bytes(range(256)) * 40, bytes(10240)
    delta = bytearray(encode_delta(data, base, 2))
    for at in range(0, len(delta), 7):
        delta[at] ^= 1
        with contextlib.suppress(Damaged):
            assert decode_delta(bytes(delta), base, 2) != data or at < 8
        delta[at] ^= 1
    with pytest.raises(Damaged):
        decode_delta(bytes(delta), base[:-1], 2)
    with pytest.raises(Damaged):
        decode_delta(b"", base, 2)
