"""Ids: new each time, sorted by time, in the layout of all other ids."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.ids import make_id
from penstock.gateway.identity import IdMaker


def test_ids_are_new_and_of_one_layout() -> None:
    maker = IdMaker("req")
    ids = [maker.make(1_700_000_000 + index / 7000) for index in range(2000)]
    assert len(set(ids)) == 2000
    assert {len(one) for one in ids} == {30}
    assert set("".join(one.removeprefix("req_") for one in ids)) <= set("0123456789abcdefghjkmnpqrstvwxyz")


@given(st.integers(0, 2**41), st.integers(1, 10**6))
def test_ids_sort_by_time_among_those_of_the_slower_maker(ms: int, later: int) -> None:
    maker = IdMaker("req")
    first, second = maker.make(ms / 1000), make_id("req", ms + later + 1, bytes(10))
    assert first < second
    assert first[:-16] in {make_id("req", ms - 1 if ms else 0, bytes(10))[:-16], make_id("req", ms, bytes(10))[:-16]}
