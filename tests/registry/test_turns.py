"""Evaluations are worked off in turns: nobody's long queue keeps another waiting."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from penstock.registry.turns import Waiting, next_in_turn


def test_whoever_has_had_least_is_next_and_their_own_go_in_order() -> None:
    waiting = [Waiting("a1", "ann"), Waiting("a2", "ann"), Waiting("b1", "bob")]
    assert next_in_turn(waiting, {}) == "a1"
    assert next_in_turn(waiting, {"ann": 5}) == "b1"
    assert next_in_turn(waiting, {"ann": 5, "bob": 6}) == "a1"
    assert next_in_turn([], {"ann": 1}) is None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 200)), min_size=1, max_size=60),
)
def test_nobody_gets_ahead_of_others_who_wait_by_more_than_one_evaluation(asked: list[tuple[str, int]]) -> None:
    waiting = [Waiting(str(number), by) for number, (by, _) in enumerate(asked)]
    items = {str(number): count for number, (_, count) in enumerate(asked)}
    had: Counter[str] = Counter()
    while waiting:
        following = next_in_turn(waiting, had)
        one = next(one for one in waiting if one.id == following)
        assert had[one.by] == min(had[other.by] for other in waiting)
        assert one.id == next(other.id for other in waiting if other.by == one.by)
        waiting.remove(one)
        had[one.by] += items[one.id]
