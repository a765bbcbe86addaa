import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.ids import make_id

times = st.integers(0, 2**48 - 1)
entropy = st.binary(min_size=10, max_size=10)


@given(times, times, entropy, entropy)
def test_ids_sort_as_their_times_do(one: int, other: int, a: bytes, b: bytes) -> None:
    if one < other:
        assert make_id("req", one, a) < make_id("req", other, b)


@given(times, entropy)
def test_an_id_has_a_prefix_and_26_characters(at: int, random: bytes) -> None:
    text = make_id("key", at, random)
    assert text.startswith("key_")
    assert len(text) == 30


def test_the_layout_is_that_of_ulid() -> None:
    assert make_id("x", 0, bytes(10)) == "x_" + "0" * 26
    assert make_id("x", 2**48 - 1, b"\xff" * 10) == "x_7" + "z" * 25


def test_too_little_entropy_is_refused() -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        make_id("req", 0, b"123")
