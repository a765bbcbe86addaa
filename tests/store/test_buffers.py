"""Buffers are handed to one at a time, and used again."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.store import buffers as buffering
from penstock.store.buffers import Buffer, Buffers


@given(st.lists(st.tuples(st.sampled_from(["take", "hold", "drop"]), st.integers(0, 20)), max_size=60))
def test_none_is_handed_out_while_somebody_uses_it(steps: list[tuple[str, int]]) -> None:
    pool = Buffers()
    users: list[Buffer] = []  # one entry for each that has to drop it
    for step, number in steps:
        if step == "take":
            taken = pool.take()
            assert taken not in users
            users.append(taken)
        elif users:
            one = users[number % len(users)]
            if step == "hold":
                one.hold()
                users.append(one)
            else:
                users.remove(one)
                one.drop()
    assert pool.scarce == (len(set(users)) >= buffering.KEPT)


def test_memory_is_used_again_until_it_is_given_back() -> None:
    pool = Buffers()
    first = pool.take()
    first.view[:3] = b"abc"
    first.drop()
    again = pool.take()
    assert again is first
    again.drop()
    pool.rest()
    fresh = pool.take()
    assert fresh is not first
    assert fresh.view[:3] == bytes(3)
    many = [pool.take() for _ in range(buffering.KEPT)]
    assert pool.scarce
    for one in many:
        one.drop()
    assert not pool.scarce
