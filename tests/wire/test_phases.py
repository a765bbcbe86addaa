"""The line and the field that tell an engine's phases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Quality
from penstock.wire.phases import ASK, HEADER, phases_line, phases_of, phases_value, take_phases
from penstock.wire.quality import quality_line, take_quality

LENGTH = st.integers(0, 2**53)
TOLD = st.builds(EnginePhases, LENGTH, LENGTH, LENGTH, LENGTH, LENGTH)
EVENT = b'data: {"usage":{}}\n\n'


@given(TOLD)
def test_what_is_told_is_what_is_read(told: EnginePhases) -> None:
    assert phases_of(phases_value(told)) == told
    assert b"\n" not in phases_value(told)
    assert take_phases(phases_line(told) + EVENT) == (EVENT, told)
    seen = Quality(1, -1.0, 0, 0)
    rest, again = take_phases(phases_line(told) + quality_line(seen) + EVENT)
    assert (again, take_quality(rest)) == (told, (EVENT, seen))


@pytest.mark.parametrize(
    "value", [None, b"", b"no", b"[-1,0,0,0,0]", b"[1.5]", b'["1"]', b"{}", b"[9007199254740993]", b"\xff", b"[" * 5000]
)
def test_numbers_that_cannot_be_are_none(value: bytes | None) -> None:
    assert phases_of(value) is None


def test_engines_of_other_versions_are_understood() -> None:
    assert phases_of(b"[1,2,3,4,5,6]") == EnginePhases(1, 2, 3, 4, 5)
    assert phases_of(b"[1,2]") == EnginePhases(1, 2)


def test_other_events_stay_as_they_are() -> None:
    for event in (EVENT, b": ping\n" + EVENT):
        assert take_phases(event) == (event, None)
    assert take_phases(b":phases oops\n" + EVENT) == (EVENT, None)


def test_the_line_that_asks_is_a_field() -> None:
    assert ASK == HEADER + b": tell\r\n"
