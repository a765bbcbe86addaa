import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.console import figures

THIN = "\u202f"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12, "12"),
        (1234, f"1{THIN}234"),
        (12_345, f"12.3{THIN}k"),
        (1e7, f"10.0{THIN}M"),
        (0.5, "0.50"),
        (None, "\u2013"),
    ],
)
def test_counts(value: float | None, text: str) -> None:
    assert figures.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, f"0{THIN}s"),
        (0.00004, f"40{THIN}µs"),
        (0.0123, f"12.3{THIN}ms"),
        (1.24, f"1.24{THIN}s"),
        (200, f"3{THIN}min 20{THIN}s"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert figures.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "$0"), (12.3, "$12.30"), (0.0042, "$0.0042"), (1234.5, "$1,234.50")])
def test_money(value: float, text: str) -> None:
    assert figures.money(value) == text


@pytest.mark.parametrize(("value", "text"), [(999, "999 bytes"), (12_345, "12.3 kB"), (18_400_000, "18.4 MB")])
def test_sizes(value: float, text: str) -> None:
    assert figures.size(value).replace(THIN, " ") == text


def test_a_moment_says_its_zone_and_its_machine_readable_form() -> None:
    assert figures.when(1_700_000_000.5) == ('<time datetime="2023-11-14T22:13:20.500Z">2023-11-14 22:13:20 UTC</time>')
    assert figures.when(None) == "\u2013"


def test_a_digest_is_escaped_wherever_it_comes_from() -> None:
    assert "<script>" not in figures.short('sha256:"><script>')


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_reads_as_something_short(value: float) -> None:
    for write in (figures.number, figures.percent, figures.signed):
        assert 0 < len(write(value)) < 330
    assert figures.seconds(abs(value))
    assert figures.money(value)


@pytest.mark.parametrize("at", [1e300, -1e300, 253402343999.0, float("inf"), float("nan")])
def test_a_moment_that_no_calendar_has_is_left_blank(at: float) -> None:
    assert figures.when(at) == "\u2013"
