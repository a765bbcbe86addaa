"""The line and the field that tell an answer's quality."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.exchange import Quality
from penstock.wire.quality import HEADER, asking, patterns_of, quality_line, quality_of, quality_value, take_quality

qualities = st.builds(
    lambda scored, logprob, repeated, more, refused: Quality(scored, logprob, repeated + more, repeated, refused),
    st.integers(0, 1 << 20),
    st.floats(max_value=0, allow_nan=False, allow_infinity=False),
    st.integers(0, 1 << 20),
    st.integers(0, 1 << 20),
    st.booleans(),
)


@given(qualities)
def test_what_is_told_is_what_is_read(quality: Quality) -> None:
    assert quality_of(quality_value(quality)) == quality
    event = b'data: {"usage":{}}\n\n'
    assert take_quality(quality_line(quality) + event) == (event, quality)


@given(st.tuples(st.text(max_size=40), st.text(max_size=40)))
def test_patterns_pass_through_a_header_field(patterns: tuple[str, ...]) -> None:
    line = asking(patterns)
    name, _, value = line.removesuffix(b"\r\n").partition(b": ")
    assert name == HEADER
    assert all(0x20 <= byte < 0x7F for byte in value)
    assert patterns_of(value) == patterns


def test_patterns_that_fit_no_header_field_are_refused() -> None:
    with pytest.raises(ValueError, match="4096"):
        asking(("x" * 5000,))


@pytest.mark.parametrize(
    "value", [None, b"", b"1 2", b"1 nan 0 0 0", b"1 -inf 0 0 0", b"-1 -1.0 0 0 0", b"1 1.0 0 0 0", b"1 -1.0 2 3 0"]
)
def test_numbers_that_cannot_be_are_none(value: bytes | None) -> None:
    assert quality_of(value) is None


def test_events_without_it_stay_as_they_are() -> None:
    assert take_quality(b"data: {}\n\n") == (b"data: {}\n\n", None)


def test_perplexity_is_that_of_the_mean_token() -> None:
    assert Quality(4, -4 * math.log(3.0), 0, 0).perplexity == pytest.approx(3.0)
    assert Quality(1, -1e300, 0, 0).perplexity == pytest.approx(math.exp(700))
    assert (Quality().perplexity, Quality().repetition) == (None, None)
    assert Quality(0, 0.0, 8, 2).repetition == 0.25
