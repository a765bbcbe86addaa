"""An engine's phases lie where they can have been, one after the other, however unlike its clock and the gateway's are."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Exchange, Phases

LENGTH = st.integers(0, 10**9)
TOLD = st.builds(EnginePhases, LENGTH, LENGTH, LENGTH, LENGTH, LENGTH)


@given(TOLD, st.integers(1, 10**9), LENGTH, LENGTH, LENGTH, st.booleans())
def test_they_lie_within_what_is_known(
    told: EnginePhases, dispatched: int, way: int, wait: int, back: int, resumed: bool
) -> None:
    """`way` to the engine, `wait` until its first token is seen, `back` after its end: all are at least 0 in truth."""
    begun = dispatched + way
    until_first = told.preprocess + told.queue + told.prefill
    first = begun + until_first + min(wait, told.decode + told.postprocess + back)
    last = begun + sum(length for _, length in told.lengths()) + back
    placed = told.placed(dispatched, first, last, resumed=resumed)
    assert [(one.name, one.end - one.begin) for one in placed] == [pair for pair in told.lengths() if pair[1]]
    for one, following in pairwise(placed):
        assert one.end == following.begin
    if not placed:
        return
    begin, end = placed[0].begin, placed[-1].end
    assert dispatched <= begin <= end <= last
    if resumed:
        assert end == last
        return
    assert begin + until_first <= first
    slack = min(way + back, first - until_first - dispatched)  # as much is left over
    assert abs(begin - begun) <= slack / 2 + 1


@given(TOLD, LENGTH, LENGTH, LENGTH, st.booleans())
def test_whatever_is_told_stays_within_the_answer(
    told: EnginePhases, dispatched: int, first: int, last: int, resumed: bool
) -> None:
    placed = told.placed(dispatched, first, last, resumed=resumed)
    ends = [dispatched, *[one.end for one in placed], last]
    assert ends == sorted(ends) or not placed
    assert all(one.end > one.begin for one in placed)


def test_an_answer_that_never_ended_has_none() -> None:
    told = EnginePhases(1, 1, 1, 1, 1)
    for phases in (Phases(1, 2, 10, 20, 0, 30), Phases(1, 2, 0, 0, 0, 30)):
        assert Exchange(id="x", at=1.0, phases=phases, engine=told).engine_placed() == ()
    assert EnginePhases().placed(10, 20, 30) == told.placed(30, 20, 10) == ()


def test_the_middle_is_taken() -> None:
    told = EnginePhases(10, 0, 20, 40, 0)
    whole = told.placed(100, 190, 190)  # an answer that came at once: 20 are left over
    assert [(one.name, one.begin, one.end) for one in whole] == [
        ("preprocess", 110, 120),
        ("prefill", 120, 140),
        ("decode", 140, 180),
    ]
    stream = told.placed(100, 134, 190)  # its first token came after 34, of which the engine had 30
    assert (stream[0].begin, stream[-1].end) == (102, 172)
    assert told.placed(100, 134, 190, resumed=True)[-1].end == 190
